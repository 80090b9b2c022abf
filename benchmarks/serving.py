"""Many at once: what the engine adds to a pass, and a long prompt beside others.

All on the starter model in this process.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.asking import STARTER, drawn, loaded, question, random_ids
from benchmarks.report import Row
from glm_backend.engine.batch import Stretch
from glm_backend.engine.request import SamplingParams, Token
from glm_backend.engine.runner import Parts
from glm_backend.language_model import LanguageModel

RUNS = 3
_STEPS = 96
_LONG = 4000


def rows() -> list[Row]:
    """Overhead, and a long prompt beside four answers."""
    found = []
    model = loaded(STARTER, "int8")
    found += [_overhead(model, users, goal) for users, goal in ((1, 0.3), (16, 1.0))]
    found.append(_long_prompt(model))
    model.close()
    return found


class _Clock:
    """Sums up what the passes of a model take, and counts them."""

    def __init__(self, runner: Any) -> None:
        self.seconds, self.passes = 0.0, 0
        self._forward, self._read = runner.forward, runner.read
        runner.forward, runner.read = self._timed, self._timed_read

    def _timed(self, batch: Sequence[Stretch]) -> torch.Tensor:
        started = time.perf_counter()
        logits: torch.Tensor = self._forward(batch)
        self.seconds += time.perf_counter() - started
        self.passes += 1
        return logits

    def _timed_read(self, batch: Sequence[Stretch]) -> Parts:
        parts = self._read(batch)
        while True:
            started = time.perf_counter()
            try:
                next(parts)
            except StopIteration as end:
                logits: torch.Tensor = end.value
                return logits
            finally:
                self.seconds += time.perf_counter() - started
            yield


def _overhead(model: LanguageModel, users: int, goal_ms: float) -> Row:
    """Between the passes of a full engine: planning, choosing tokens, handing them out."""
    clock = _Clock(model._runner)
    found = []
    for run in range(RUNS + 1):
        clock.seconds, clock.passes = 0.0, 0
        answers = [
            model.submit(question(model, user), drawn(_STEPS, run * users + user), ignore_eos=True)
            for user in range(users)
        ]
        started = time.perf_counter()
        for answer in answers:
            list(answer.events())
        elapsed = time.perf_counter() - started
        if run:
            found.append((elapsed - clock.seconds) / clock.passes * 1e3)
    del model._runner.forward, model._runner.read
    milliseconds = statistics.median(found)
    return Row(
        f"engine beside the pass, a step, {users} request(s)",
        f"{milliseconds:.2f} ms",
        "top_k 50, top_p 0.9, vocabulary 49,152",
        f"<= {goal_ms} ms",
        milliseconds <= goal_ms,
    )


def _long_prompt(model: LanguageModel) -> Row:
    """The time between two tokens of four answers, before and while a long prompt is read.

    The answers are drawn so that none repeats itself: guesses come as several tokens at once.
    """
    ratios, befores, whiles = [], [], []
    for run in range(RUNS):
        times: list[list[float]] = [[] for _ in range(4)]
        answers = [
            model.submit(question(model, n), _never_the_same(10 * run + n), ignore_eos=True)
            for n in range(4)
        ]
        readers = [
            threading.Thread(target=_note_times, args=(answer, noted))
            for answer, noted in zip(answers, times, strict=True)
        ]
        for reader in readers:
            reader.start()
        time.sleep(3)
        asked = time.perf_counter()
        long = model.submit(random_ids(model, _LONG, run), drawn(1, run), ignore_eos=True)
        list(long.events())
        read = time.perf_counter()
        for answer in answers:
            answer.cancel()
        for reader in readers:
            reader.join()
        before = _p95([g for noted in times for g in _gaps(noted, asked - 2, asked)])
        during = _p95([g for noted in times for g in _gaps(noted, asked, read)])
        ratios.append(during / before)
        befores.append(before)
        whiles.append(during)
    ratio = statistics.median(ratios)
    return Row(
        f"gap between tokens of 4 answers while a prompt of {_LONG:,} is read, p95",
        f"{statistics.median(whiles) * 1e3:.0f} ms",
        f"before it {statistics.median(befores) * 1e3:.0f} ms: {ratio:.2f} x",
        "<= 2 x",
        ratio <= 2,
    )


def _never_the_same(seed: int) -> SamplingParams:
    return replace(drawn(3000, seed), temperature=1.5, top_k=0, top_p=1.0)


def _note_times(answer: Any, noted: list[float]) -> None:
    for event in answer.events():
        if isinstance(event, Token):
            noted.append(time.perf_counter())


def _gaps(noted: list[float], start: float, end: float) -> list[float]:
    return [
        later - earlier
        for earlier, later in itertools.pairwise(noted)
        if start <= earlier and later <= end
    ]


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]
