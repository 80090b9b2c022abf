"""The same numbers, to the last bit, alone and in any company, on the real starter model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glm_backend.engine.batch import Stretch
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.native_runner import NativeRunner
from glm_backend.engine.request import Finished, SamplingParams, Token
from glm_backend.engine.runner import Runner
from glm_backend.language_model import LanguageModel
from glm_backend.models.loader import load
from glm_backend.models.model import Quantization

pytestmark = pytest.mark.starter
PRECISIONS: list[Quantization] = ["none", "int8", "int4"]
PROMPT = [(7919 * place) % 40_000 + 50 for place in range(333)]


@pytest.fixture(
    scope="module",
    params=[
        (LeanRunner, "none", None),
        (LeanRunner, "int8", None),
        (LeanRunner, "int8", torch.float16),
        (LeanRunner, "int4", torch.float16),
        (NativeRunner, "int8", torch.float16),
        (NativeRunner, "int4", torch.float16),
    ],
    ids=lambda param: f"{param[0].__name__}-{param[1]}-{param[2]}",
)
def runner(request: pytest.FixtureRequest, starter: object, model_dir: Path) -> Runner:
    """With keys and values in whichever precision a machine may find faster."""
    kind, quantization, kept_in = request.param
    loaded = load("smollm2-135m", quantization=quantization, model_dir=model_dir)
    if kind is not LeanRunner and not kind.fits(loaded.module):
        pytest.skip("this machine cannot run it exactly; then nothing uses it")
    made: LeanRunner | NativeRunner = kind(loaded.module)
    if isinstance(made, LeanRunner):
        made.kv_dtype = kept_in
    made.open(8, 2000)
    return made


@pytest.fixture(scope="module", params=PRECISIONS)
def model(
    request: pytest.FixtureRequest, starter: object, model_dir: Path
) -> Iterator[LanguageModel]:
    made = LanguageModel(load("smollm2-135m", quantization=request.param, model_dir=model_dir))
    yield made
    made.close()


def neighbours(step: int) -> list[Stretch]:
    """Answers under way of several lengths, and a prompt being read."""
    others = [Stretch(slot, 40 * slot + step, [step + slot], answering=True) for slot in (0, 2, 5)]
    return [*others, Stretch(7, 24 * step, [9] * 24, scored=0)]


def read_and_answered(runner: Runner, portion: int, *, company: bool) -> list[Tensor]:
    """Logits after the prompt, read in such portions, and after each of six more tokens."""
    for slot in (2, 5):
        runner.forward([Stretch(slot, 0, [slot + 3] * (40 * slot), scored=0)])
    rows = []
    ends = [*range(portion, len(PROMPT), portion), len(PROMPT)]
    parts = [(start, PROMPT[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    parts += [(len(PROMPT) + i, [100 + i]) for i in range(6)]
    for step, (start, token_ids) in enumerate(parts):
        complete = start + len(token_ids) >= len(PROMPT)
        answering = start >= len(PROMPT)
        own = Stretch(3, start, token_ids, scored=int(complete), answering=answering)
        others = neighbours(step) if company else []
        logits = runner.forward([*others[:2], own, *others[2:]])
        if complete:
            rows.append(logits[min(2, len(others))])
    return rows


def test_logits_do_not_depend_on_neighbours_or_portions(runner: Runner) -> None:
    alone = read_and_answered(runner, 64, company=False)
    assert len(alone) == 7
    for portion, company in ((64, True), (24, True), (104, False), (8, True), (332, False)):
        rows = read_and_answered(runner, portion, company=company)
        for one, other in zip(alone, rows, strict=True):
            assert torch.equal(one, other), (portion, company)


def test_guessed_tokens_have_the_logits_that_they_have_alone(runner: Runner) -> None:
    runner.forward([Stretch(1, 0, PROMPT[:120], scored=0)])
    one_by_one = [
        runner.forward([Stretch(1, 120 + i, [200 + i], answering=True)])[0] for i in range(12)
    ]
    runner.forward([Stretch(4, 0, PROMPT[:120], scored=0)])
    together = runner.forward(
        [Stretch(4, 120, list(range(200, 212)), scored=12, answering=True), Stretch(6, 0, [5, 6])]
    )
    for one, other in zip(one_by_one, together[:12], strict=True):
        assert torch.equal(one, other)


def answers(model: LanguageModel, prompts: list[list[int]], **options: Any) -> list[list[int]]:
    params = [SamplingParams(max_new_tokens=24, seed=i, **options) for i in range(len(prompts))]
    generations = [model.submit(p, s) for p, s in zip(prompts, params, strict=True)]
    return [[e.token_id for e in g.events() if isinstance(e, Token)] for g in generations]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same_alone_and_among_neighbours(
    model: LanguageModel, temperature: float
) -> None:
    prompts = [
        model.prompt_ids([{"role": "user", "content": f"What is the number {n}? " * (n % 4 + 1)}])
        for n in range(8)
    ]
    together = answers(model, prompts, temperature=temperature)
    for number, prompt in enumerate(prompts):
        params = SamplingParams(max_new_tokens=24, seed=number, temperature=temperature)
        alone = [e.token_id for e in model.submit(prompt, params).events() if isinstance(e, Token)]
        assert alone == together[number]


def test_a_second_turn_answers_the_same_whether_or_not_the_first_is_still_there(
    model: LanguageModel, model_dir: Path
) -> None:
    question = [{"role": "user", "content": "Name three colours of the rainbow."}]
    first = model.prompt_ids(question)
    answer = model.generate_ids(first, 30)
    second = [*first, *answer, *model.prompt_ids([{"role": "user", "content": "And one more?"}])]
    params = SamplingParams(temperature=0, max_new_tokens=20)
    *tokens, end = model.submit(second, params).events()
    assert isinstance(end, Finished)
    assert end.usage.cached_tokens >= len(first) + len(answer) - 1
    fresh = LanguageModel(
        load("smollm2-135m", quantization=model.quantization, model_dir=model_dir)  # type: ignore[arg-type]
    )
    assert fresh.generate_ids(second, 20) == [t.token_id for t in tokens if isinstance(t, Token)]
    fresh.close()
