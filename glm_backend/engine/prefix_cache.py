"""Which tokens' keys and values lie in which slot, and who may write there.

A slot whose sequence has ended keeps what it holds until the room is needed, least recently used
first. A new prompt goes on from the longest beginning that any slot shares with it: the next turn
of a conversation, a regenerated or edited one, a system prompt that everybody has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from glm_backend.engine.runner import Runner

#: A shared beginning shorter than this is read again: a copy would cost about as much.
_LEAST_SHARED = 8
_NOTHING: NDArray[np.int64] = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class _Slot:
    """tokens: what it is known to hold. rows: how many rows may have been written since it was
    cleared. reserved: rows that its sequence may come to need; 0 while nobody has it."""

    number: int
    tokens: NDArray[np.int64] = field(default_factory=lambda: _NOTHING)
    rows: int = 0
    reserved: int = 0
    used_at: int = 0

    @property
    def free(self) -> bool:
        return self.reserved == 0

    @property
    def held(self) -> int:
        """Rows that count against the budget."""
        return max(self.rows, self.reserved)


@dataclass(frozen=True, slots=True)
class Place:
    """A slot for one sequence, which holds the first `known` tokens of its prompt already."""

    slot: int
    known: int


class PrefixCache:
    """Slots of a runner, with at most `budget` rows written or promised at a time."""

    def __init__(self, runner: Runner, slots: int, budget: int) -> None:
        self._runner = runner
        self._budget = budget
        self._slots = [_Slot(number) for number in range(slots)]
        self._clock = count(1)
        self.hits = 0
        self.reused_tokens = 0

    @property
    def budget(self) -> int:
        """Rows, one a token, that there is room for."""
        return self._budget

    @property
    def held(self) -> int:
        """Rows that are written or promised."""
        return sum(slot.held for slot in self._slots)

    @property
    def kept(self) -> int:
        """Sequences that have ended and whose rows are still there."""
        return sum(slot.free and len(slot.tokens) > 0 for slot in self._slots)

    def close(self) -> None:
        """Lets go of the runner."""
        self._slots.clear()
        del self._runner

    def take(self, prompt: Sequence[int], reserve: int) -> Place | None:
        """A slot for a prompt that may grow to `reserve` tokens; None while there is no room."""
        wanted = np.asarray(prompt, dtype=np.int64)
        donor, shared = self._longest_shared(wanted[:-1])
        target = self._target(donor, shared, reserve)
        if target is None:
            return None
        if donor is not None and donor is not target:
            self._runner.copy(donor.number, target.number, shared)
        if shared:
            self.hits += 1
            self.reused_tokens += shared
        target.tokens = wanted[:shared]
        target.rows = max(target.rows, shared)
        target.reserved = reserve
        target.used_at = next(self._clock)
        return Place(target.number, shared)

    def note(self, number: int, tokens: Sequence[int]) -> None:
        """These are in the slot now; others may begin with them."""
        if self._runner.rewinds:
            self._slots[number].tokens = np.asarray(tokens, dtype=np.int64)

    def give_back(self, number: int, tokens: Sequence[int], *, clean: bool) -> None:
        """Its sequence has ended. clean: every row written is a finite number."""
        slot = self._slots[number]
        slot.rows = max(slot.rows, len(tokens))
        slot.used_at = next(self._clock)
        if clean and self._runner.rewinds:
            slot.tokens = np.asarray(tokens, dtype=np.int64)
        else:
            self._clear(slot)
        slot.reserved = 0  # last: one that could not be cleared is nobody's any more

    def _longest_shared(self, prompt: NDArray[np.int64]) -> tuple[_Slot | None, int]:
        best, longest = None, _LEAST_SHARED - 1
        for slot in self._slots:
            length = _shared(slot.tokens, prompt)
            if length > longest or (length == longest and best is not None and slot.free):
                best, longest = slot, length
        return (best, longest) if best is not None else (None, 0)

    def _target(self, donor: _Slot | None, shared: int, reserve: int) -> _Slot | None:
        """The slot to write in, with room made for it."""
        others = sorted(
            (slot for slot in self._slots if slot.free and slot is not donor),
            key=lambda slot: (len(slot.tokens) > 0, slot.used_at),
        )
        if donor is not None and donor.free:
            # The rest of a long conversation is worth more than the copy of its short beginning.
            if not others or 2 * shared >= len(donor.tokens):
                others.insert(0, donor)
            else:
                others.append(donor)
        for target in others:
            if self._make_room(reserve, target, donor):
                return target
        return None

    def _make_room(self, reserve: int, target: _Slot, donor: _Slot | None) -> bool:
        """Clears what was used longest ago until `reserve` rows fit in `target`."""
        kept = [slot for slot in self._slots if slot.free and slot is not target]
        for slot in sorted(kept, key=lambda slot: (slot is donor, slot.used_at)):
            if self._fits(reserve, target):
                return True
            if slot.rows and slot is not donor:
                self._clear(slot)
        if not self._fits(reserve, target) and target is not donor:
            self._clear(target)
        return self._fits(reserve, target)

    def _fits(self, reserve: int, target: _Slot) -> bool:
        others = self.held - target.held
        return others + max(reserve, target.rows) <= self._budget

    def _clear(self, slot: _Slot) -> None:
        self._runner.clear(slot.number)
        slot.tokens, slot.rows = _NOTHING, 0


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Length of the beginning that both have."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
