"""A model of eleven tokens whose every move is known: after token t comes t + 1.

Token 9 is the end. A runner is told at which tokens it misbehaves, and keeps a record of its
passes, so that tests can say what the engine did.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from glm_backend.engine.runner import Stretch

VOCAB = 11
END = 9
POISON = 10  # a prompt that holds this token makes the pass raise
NAN_AFTER = 7  # with `nan=True`, what follows this token is not a number


class FakeCache:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0


class FakeRunner:
    batched = True

    def __init__(self, *, nan: bool = False) -> None:
        self.nan = nan
        self.batches: list[list[int]] = []  # tokens of each stretch of each pass
        self.gate = threading.Event()
        self.gate.set()

    def new_cache(self, capacity: int) -> FakeCache:
        return FakeCache(capacity)

    def forward(self, batch: Sequence[Stretch[FakeCache]]) -> Tensor:
        self.gate.wait()
        self.batches.append([len(stretch.token_ids) for stretch in batch])
        if any(POISON in stretch.token_ids for stretch in batch):
            raise RuntimeError("poisoned")
        for stretch in batch:
            stretch.cache.length += len(stretch.token_ids)
            assert stretch.cache.length <= stretch.cache.capacity
        return torch.stack([self._row(stretch.token_ids[-1]) for stretch in batch])

    def score(self, token_ids: Sequence[int]) -> Tensor:
        return torch.stack([self._row(token) for token in token_ids])

    def _row(self, last: int) -> Tensor:
        if self.nan and last == NAN_AFTER:
            return torch.full((VOCAB,), float("nan"))
        row = torch.zeros(VOCAB)
        row[(last + 1) % END if last == END else last + 1] = 5.0
        return row
