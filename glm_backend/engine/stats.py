"""How busy an engine is, what it has done, and how long that took."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from glm_backend.engine.request import Failed, Finished, FinishReason

#: How a request ended; "refused" never came into the line.
End = FinishReason | Literal["failed", "refused"]

_STEP_BOUNDS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_FIRST_BOUNDS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long: up to each bound in seconds, and beyond the last."""

    bounds_s: tuple[float, ...] = ()
    counts: tuple[int, ...] = (0,)
    sum_s: float = 0.0


class Timings:
    """Collects a Histogram. For one writer; may be read from any thread."""

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """A bound belongs to what lies below it, as Prometheus has it."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def histogram(self) -> Histogram:
        """What was collected so far."""
        return Histogram(self._bounds_s, tuple(self._counts), self._sum_s)


class Counts:
    """What an engine counts while it works."""

    def __init__(self) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.guessed_tokens = 0
        self.guessed_right = 0
        self.ends: Counter[End] = Counter()
        self.first_token = Timings(_FIRST_BOUNDS_S)
        self.steps = Timings(_STEP_BOUNDS_S)

    def ended(self, event: Finished | Failed) -> None:
        """A request has come to its end."""
        self.ends[event.reason if isinstance(event, Finished) else "failed"] += 1
        if event.usage.ttft_s is not None:
            self.first_token.add(event.usage.ttft_s)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How busy the engine is, and what it has done since it started.

    kv_tokens, kv_limit: tokens whose keys and values are kept or promised, and how many can be.
    kept: conversations that are kept for their next turn. threads: of the kernels, 0 before the
    first step. prompt_tokens: read, without those reused. reused_tokens: of prompts that began
    like something that was there; reuses: in how many of them. guessed_tokens, guessed_right: by
    prompt lookup. ends: requests by how they ended. first_token: from asking to the first token.
    steps: passes of the model.
    """

    running: int
    waiting: int
    max_running: int
    kv_tokens: int = 0
    kv_limit: int = 0
    kept: int = 0
    threads: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused_tokens: int = 0
    reuses: int = 0
    guessed_tokens: int = 0
    guessed_right: int = 0
    ends: Mapping[End, int] = field(default_factory=dict)
    first_token: Histogram = Histogram()
    steps: Histogram = Histogram()
