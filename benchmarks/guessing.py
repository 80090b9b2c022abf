"""Answers with guesses by prompt lookup beside the same answers without them.

The starter model in this process. Both ways give the same tokens (tests/engine), so what differs is
time: of answers that repeat nothing, of the dashboard's own, of one that copies its question, and
with guesses that are always there and never right.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from benchmarks.asking import STARTER, drawn, loaded, question
from benchmarks.report import Row
from glm_backend.engine.request import Finished, SamplingParams
from glm_backend.engine.speculation import Cost, PromptLookup
from glm_backend.language_model import LanguageModel

_PAIRS = 11
_STEPS = 160
_GOAL = 0.97
_COPIED = "Repeat this list three times: " + ", ".join(
    ["red apples", "green pears", "yellow plums", "ripe figs", "dried dates", "sour cherries"]
)


def rows() -> list[Row]:
    """One answer and sixteen, of three kinds; then one that copies."""
    model = loaded(STARTER, "int8")
    found = []
    for users in (1, 16):
        asked = [question(model, user) for user in range(users)]
        who = "1 answer" if users == 1 else f"{users} answers"
        found += [
            _compared(f"{who}, nothing repeated", model, asked, _scattered),
            _compared(f"{who}, the dashboard's parameters", model, asked, _drawn),
            _compared(f"{who}, always a guess and always wrong", model, asked, _scattered, _misled),
        ]
    copied = [model.prompt_ids([{"role": "user", "content": _COPIED}])]
    found.append(_compared("1 answer that copies its question", model, copied, _greedy))
    model.close()
    return found


def _compared(
    what: str,
    model: LanguageModel,
    prompts: list[list[int]],
    params: Callable[[int], SamplingParams],
    guesses: Callable[[], Iterator[None]] | None = None,
) -> Row:
    """Medians of pairs, each way first in turn; two pairs before warm up, and read the prompts."""
    ratios = []
    for pair in range(-2, _PAIRS):
        seconds = {}
        for guessing in (True, False) if pair % 2 else (False, True):
            way = (guesses or _as_they_come) if guessing else _none
            with contextmanager(way)():
                seconds[guessing] = _seconds(model, prompts, params, pair + 2)
        if pair >= 0:
            ratios.append(seconds[False] / seconds[True])
    ratio = statistics.median(ratios)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return Row(f"guesses: {what}", f"{ratio:.3f} x", spread, f">= {_GOAL}", ratio >= _GOAL)


def _seconds(
    model: LanguageModel,
    prompts: list[list[int]],
    params: Callable[[int], SamplingParams],
    pair: int,
) -> float:
    """Of all answers, each from its first token to its last."""
    answers = [
        model.submit(prompt, params(pair * len(prompts) + user), ignore_eos=True, client=str(user))
        for user, prompt in enumerate(prompts)
    ]
    ends = [event for a in answers for event in a.events() if isinstance(event, Finished)]
    return sum(end.usage.duration_s - (end.usage.ttft_s or 0) for end in ends)


def _drawn(seed: int) -> SamplingParams:
    return drawn(_STEPS, seed)


def _scattered(seed: int) -> SamplingParams:
    return replace(drawn(_STEPS, seed), temperature=1.5, top_k=0, top_p=1.0)


def _greedy(seed: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_new_tokens=_STEPS)


def _as_they_come() -> Iterator[None]:
    yield


def _none() -> Iterator[None]:
    with patch.object(PromptLookup, "propose", lambda *_: []):
        yield


def _misled() -> Iterator[None]:
    """Every text is found to go on as it began."""

    def found(lookup: PromptLookup, most: int, rows: int, cost: Cost) -> list[int]:
        newest = tuple(lookup._tokens[-3:])
        lookup._follows[newest] = 0
        return propose(lookup, most, rows, cost)

    propose = PromptLookup.propose
    with patch.object(PromptLookup, "propose", found):
        yield
