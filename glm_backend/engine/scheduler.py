"""Who runs in the next step.

Requests wait in line for a place; those with a place are sequences. Every step carries one token
of each answer under way and, beside them, a bounded number of prompt tokens, so that a long
prompt is read in portions and the others' answers go on meanwhile.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic

from glm_backend.engine.request import Generation
from glm_backend.engine.runner import CacheT, Stretch
from glm_backend.engine.sampler import Sampler


@dataclass(slots=True, eq=False)
class Sequence(Generic[CacheT]):
    """A request with a place in the batch: what the model has read, and what it reads next.

    `pending` holds the token ids that are not in the cache yet: the rest of the prompt, or the
    one token just chosen.
    """

    generation: Generation
    cache: CacheT
    sampler: Sampler
    pending: list[int]
    prefilled: bool = False


@dataclass(slots=True)
class Scheduler(Generic[CacheT]):
    """The line and the batch. Plain bookkeeping, without threads or tensors."""

    max_running: int
    max_waiting: int
    waiting: deque[Generation] = field(default_factory=deque)
    running: list[Sequence[CacheT]] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """True when a step would have nothing to do."""
        return not self.waiting and all(s.generation.paused for s in self.running)

    def next_waiting(self) -> Generation | None:
        """Takes the first in line, if there is a place for it."""
        if self.waiting and len(self.running) < self.max_running:
            return self.waiting.popleft()
        return None

    def plan(self, prefill_tokens: int) -> list[tuple[Sequence[CacheT], Stretch[CacheT]]]:
        """The stretches of the next step; at most `prefill_tokens` of them from prompts.

        Prompts are served in the order of arrival. At least one prompt token is taken whatever
        the bound, so that nobody starves.
        """
        planned = []
        room = max(1, prefill_tokens)
        for sequence in self.running:
            if sequence.generation.paused:
                continue
            if sequence.prefilled:
                planned.append((sequence, Stretch(sequence.pending, sequence.cache)))
            elif room > 0:
                portion = sequence.pending[:room]
                room -= len(portion)
                planned.append((sequence, Stretch(portion, sequence.cache)))
        return planned

    def remove_cancelled(self) -> list[Generation]:
        """Takes everyone who asked for the end out of line and batch."""
        gone = [g for g in self.waiting if g.cancelled]
        gone += [s.generation for s in self.running if s.generation.cancelled]
        if gone:
            self.waiting = deque(g for g in self.waiting if not g.cancelled)
            self.running = [s for s in self.running if not s.generation.cancelled]
        return gone
