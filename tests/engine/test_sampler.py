"""Choosing a token, held against transformers' own warpers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from glm_backend.engine.request import LIMITS, SamplingParams
from glm_backend.engine.sampler import Sampler
from glm_backend.errors import InvalidParameter

VOCAB = 1000


def logits_of(seed: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * scale


def chosen(sampler: Sampler, logits: torch.Tensor) -> int:
    return sampler.choose(logits.clone().numpy()).token_id


def reference_probabilities(
    logits: torch.Tensor, params: SamplingParams, prompt: tuple[int, ...]
) -> torch.Tensor:
    """What transformers' generate() would draw from."""
    scores, ids = logits[None].clone(), torch.tensor([list(prompt)])
    if params.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(params.repetition_penalty)(ids, scores)
    scores = TemperatureLogitsWarper(params.temperature)(ids, scores)
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(ids, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(ids, scores)
    if params.min_p > 0:
        scores = MinPLogitsWarper(params.min_p)(ids, scores)
    if params.typical_p < 1:
        scores = TypicalLogitsWarper(params.typical_p)(ids, scores)
    return scores.softmax(-1)[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.floats(0.1, 2.0),
    top_p=st.floats(0.05, 1.0),
    top_k=st.sampled_from([0, 1, 5, 300]),
    penalty=st.sampled_from([1.0, 1.3, 0.7]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    typical_p=st.sampled_from([1.0, 0.9, 0.3]),
)
def test_only_tokens_that_transformers_would_allow_are_drawn(
    *,
    seed: int,
    temperature: float,
    top_p: float,
    top_k: int,
    penalty: float,
    min_p: float,
    typical_p: float,
) -> None:
    params = SamplingParams(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        typical_p=typical_p,
        repetition_penalty=penalty,
        seed=seed,
    )
    prompt = (1, 2, 3, 500)
    logits = logits_of(seed)
    allowed = reference_probabilities(logits, params, prompt)
    for _ in range(20):
        token = chosen(Sampler(params, prompt, VOCAB), logits)
        assert allowed[token] > 0


def test_draws_follow_the_distribution() -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9, top_k=0, seed=5)
    logits = logits_of(1, scale=2.0)
    expected = reference_probabilities(logits, params, ())
    sampler, draws = Sampler(params, (), VOCAB), 6_000
    counts = Counter(chosen(sampler, logits) for _ in range(draws))
    for token in expected.topk(5).indices.tolist():
        assert counts[token] / draws == pytest.approx(float(expected[token]), rel=0.2)


@pytest.mark.parametrize("name", ["min_p", "typical_p", "top_k"])
def test_every_token_that_transformers_would_allow_can_come(name: str) -> None:
    value = {"min_p": 0.2, "typical_p": 0.5, "top_k": 7}[name]
    params = SamplingParams(temperature=1.5, top_p=1.0, seed=9, **{name: value})  # type: ignore[arg-type]
    logits = logits_of(4, scale=1.0)
    allowed = set(reference_probabilities(logits, params, ()).nonzero().flatten().tolist())
    sampler = Sampler(params, (), VOCAB)
    assert {chosen(sampler, logits) for _ in range(60 * len(allowed))} == allowed


def test_log_probabilities_are_the_models_own() -> None:
    logits = logits_of(3)
    expected = logits.log_softmax(0)
    params = SamplingParams(temperature=0, repetition_penalty=1.5, logprobs=3)
    token = Sampler(params, (1, 2), VOCAB).choose(logits.clone().numpy())
    assert token.logprob == pytest.approx(float(expected[token.token_id]), abs=1e-5)
    best = expected.topk(3)
    assert [place for place, _ in token.alternatives] == best.indices.tolist()
    assert [value for _, value in token.alternatives] == pytest.approx(
        best.values.tolist(), abs=1e-5
    )


def test_a_flat_distribution_reaches_beyond_the_first_candidates() -> None:
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=3)
    sampler = Sampler(params, (), VOCAB)
    drawn = {chosen(sampler, torch.zeros(VOCAB)) for _ in range(3000)}
    assert 850 <= len(drawn) <= 951


@pytest.mark.parametrize("temperature", [0, 5e-324, 1e-46, 1e-38, 1e-6, 1e-5])
@pytest.mark.parametrize("top_p", [0.8, 1.0])
def test_temperature_zero_and_nearly_zero_take_the_most_likely(
    temperature: float, top_p: float
) -> None:
    logits = logits_of(2)
    sampler = Sampler(SamplingParams(temperature=temperature, top_p=top_p), (), VOCAB)
    assert chosen(sampler, logits) == int(logits.argmax())


def test_the_penalty_also_counts_what_was_just_said() -> None:
    logits = torch.tensor([1.0, 1.2, 0.9])
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=1.5), (), 3)
    assert [chosen(sampler, logits) for _ in range(3)] == [1, 0, 2]


def test_a_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.5, top_p=1.0, seed=seed), (), VOCAB)
        return [chosen(sampler, logits_of(i)) for i in range(30)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_value_beyond_its_limits_is_refused_by_name(name: str) -> None:
    low, high = LIMITS[name]
    for value in (low - 1, high + 1, "much", float("nan"), True):
        with pytest.raises(InvalidParameter, match=name):
            SamplingParams(**{name: value})
    for value in (low, high):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("stop", [("",), "text", (1,), tuple("abcdefghijklmnopq")])
def test_stop_strings_of_the_wrong_form_are_refused(stop: object) -> None:
    with pytest.raises(InvalidParameter, match="stop"):
        SamplingParams(stop=stop)
