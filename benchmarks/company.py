"""The same answers in company as alone, on the starter model: fifty of them, in both precisions.

Some eight minutes, nearly all of it for the answers alone, one after the other.
"""

from __future__ import annotations

from typing import Any

from benchmarks.asking import STARTER, loaded, random_ids
from benchmarks.report import Row
from glm_backend.engine.request import SamplingParams, Token
from glm_backend.language_model import LanguageModel
from glm_backend.models.model import Quantization

_PRECISIONS: dict[str, Quantization] = {"INT8": "int8", "fp32": "none"}
_PROMPTS, _TOKENS = 50, 128


def rows() -> list[Row]:
    """A line a precision."""
    found = []
    for precision, quantization in _PRECISIONS.items():
        model = loaded(STARTER, quantization)
        found.append(_same_tokens(model, precision))
        model.close()
    return found


def _same_tokens(model: LanguageModel, precision: str) -> Row:
    """Fifty greedy and seeded answers, each alone, and then all of them as they come."""
    params = [
        SamplingParams(temperature=0.9 * (n % 2), max_new_tokens=_TOKENS, seed=n)
        for n in range(_PROMPTS)
    ]
    prompts = [random_ids(model, 20 + n, n) for n in range(_PROMPTS)]
    alone = [
        _tokens(model.submit(prompt, p, ignore_eos=True))
        for prompt, p in zip(prompts, params, strict=True)
    ]
    together = [
        model.submit(prompt, p, ignore_eos=True) for prompt, p in zip(prompts, params, strict=True)
    ]
    same = sum(one == _tokens(answer) for one, answer in zip(alone, together, strict=True))
    return Row(
        f"answers of {_TOKENS} tokens that are the same in company, {precision}",
        f"{same} of {_PROMPTS}",
        "each alone",
        f"{_PROMPTS}",
        same == _PROMPTS,
    )


def _tokens(answer: Any) -> list[int]:
    return [event.token_id for event in answer.events() if isinstance(event, Token)]
