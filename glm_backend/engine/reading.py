"""Prompts that are read beside answers: a pass that goes on over several steps.

A model reads many tokens in one pass far quicker than in many passes of few. So that answers under
way need not wait for one of many, it is taken layer by layer, some in each step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from glm_backend.engine.runner import Runner
from glm_backend.engine.scheduler import Planned


class Reading:
    """The pass over some portions of prompts.

    planned: these portions. tokens: how many they are together.
    """

    def __init__(self, runner: Runner, planned: Sequence[Planned]) -> None:
        self.planned = list(planned)
        self.tokens = sum(len(part.stretch.token_ids) for part in planned)
        self._parts = runner.read([part.stretch for part in planned])

    @property
    def unwanted(self) -> bool:
        """True when every request in it was cancelled."""
        return all(part.sequence.generation.cancelled for part in self.planned)

    def advance(self, seconds: float) -> tuple[int, Tensor | None]:
        """Goes on for so long: (parts taken, the logits or None).

        Takes one part at least, and leaves off where another as long as the last would be too much.
        Raises what the pass raises; it is over then.
        """
        started = before = time.perf_counter()
        taken = 0
        while True:
            try:
                next(self._parts)
            except StopIteration as end:
                logits: Tensor = end.value
                return taken, logits
            taken += 1
            now = time.perf_counter()
            if now - started + (now - before) > seconds:
                return taken, None
            before = now
