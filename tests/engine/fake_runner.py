"""A model of eleven tokens whose every move is known: after token t comes t + 1.

Token 9 is the end. It holds what every slot holds, checks that a step goes on from there, and is
told at which tokens it misbehaves; it keeps a record of its passes, so that tests can say what the
engine did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from glm_backend.engine.batch import Stretch
from glm_backend.engine.runner import Parts

VOCAB = 11
END = 9
POISON = 10  # a prompt that holds this token makes the pass raise
NAN_AFTER = 7  # with `nan=True`, what follows this token is not a number

#: What a slot holds -> the next token.
Follows = Callable[[Sequence[int]], int]


def one_more(tokens: Sequence[int]) -> int:
    return (tokens[-1] + 1) % END if tokens[-1] == END else tokens[-1] + 1


def of_all(tokens: Sequence[int]) -> int:
    """Depends on every token, so that an answer made from another's tokens shows."""
    value = 0
    for token in tokens:
        value = (value * 31 + token + 7) % 1_000_003
    return value % END


class FakeRunner:
    """parts: of how many a pass of `read` is, each of which takes so many seconds."""

    batched = True
    held_bytes = 0

    def __init__(
        self,
        *,
        nan: bool = False,
        follows: Follows = one_more,
        rewinds: bool = True,
        memory: int = 10**9,
        parts: int = 1,
        part_s: float = 0,
    ) -> None:
        """memory: tokens that all stretches of one pass may have together, up to their ends."""
        self.nan = nan
        self.follows = follows
        self.rewinds = rewinds
        self.memory = memory
        self.parts = parts
        self.part_s = part_s
        self.held: dict[int, list[int]] = {}
        self.batches: list[list[int]] = []  # tokens of each stretch of each pass
        self.slots_used: list[list[int]] = []  # their slots
        self.rests: list[int] = []  # after how many passes one of `read` rested
        self.copies: list[tuple[int, int, int]] = []
        self.cleared: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def open(self, slots: int, tokens: int) -> None:
        self.slots, self.tokens = slots, tokens

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        self.gate.wait()
        self.batches.append([len(stretch.token_ids) for stretch in batch])
        self.slots_used.append([stretch.slot for stretch in batch])
        assert len({stretch.slot for stretch in batch}) == len(batch)
        if any(POISON in stretch.token_ids for stretch in batch):
            raise RuntimeError("poisoned")
        if sum(stretch.end for stretch in batch) > self.memory:
            raise MemoryError("out of memory")
        rows: list[Tensor] = []
        for stretch in batch:
            before = self.held.get(stretch.slot, [])[: stretch.start]
            assert len(before) == stretch.start, "the slot holds less than the engine believes"
            assert stretch.end <= self.tokens
            self.held[stretch.slot] = [*before, *stretch.token_ids]
            for end in range(stretch.end - stretch.scored + 1, stretch.end + 1):
                rows.append(self._row(self.held[stretch.slot][:end]))
        return torch.stack(rows) if rows else torch.empty(0, VOCAB)

    def read(self, batch: Sequence[Stretch]) -> Parts:
        for _ in range(self.parts - 1):
            self.gate.wait()
            time.sleep(self.part_s)
            self.rests.append(len(self.batches))
            yield
        return self.forward(batch)

    def copy(self, source: int, target: int, tokens: int) -> None:
        assert self.rewinds
        self.copies.append((source, target, tokens))
        self.held[target] = self.held[source][:tokens]

    def clear(self, slot: int) -> None:
        self.cleared.append(slot)
        self.held.pop(slot, None)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        return torch.stack([self._row(token_ids[: i + 1]) for i in range(len(token_ids))])

    def _row(self, tokens: Sequence[int]) -> Tensor:
        if self.nan and tokens[-1] == NAN_AFTER:
            return torch.full((VOCAB,), float("nan"))
        row = torch.zeros(VOCAB)
        row[self.follows(tokens)] = 5.0
        return row
