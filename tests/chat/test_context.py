"""The token budget: what leaves first, what stays, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_backend.context import fit
from glm_backend.engine.request import SamplingParams
from glm_backend.errors import ContextOverflow
from glm_backend.models.model import Message
from glm_backend.testing import FakeModel

PARAMS = SamplingParams(max_new_tokens=20)


def conversation(lengths: list[int]) -> list[Message]:
    """Turns whose questions have so many words, each answered in one, and a last question."""
    history: list[Message] = []
    for words in lengths:
        history += [
            {"role": "user", "content": " ".join(["w"] * words)},
            {"role": "assistant", "content": "ok"},
        ]
    return history[:-1]


def test_everything_stays_while_it_fits() -> None:
    history = conversation([3, 3, 3])
    fitted = fit(FakeModel(context_length=100), "be kind", history, PARAMS)
    assert fitted.left_out == 0
    assert fitted.messages[0] == {"role": "system", "content": "be kind"}
    assert list(fitted.messages[1:]) == history
    assert fitted.max_new_tokens == 20


def test_the_oldest_turns_leave_first_and_whole() -> None:
    fitted = fit(FakeModel(context_length=49), "be kind", conversation([10, 10, 5, 5]), PARAMS)
    assert fitted.left_out == 4
    assert fitted.messages[0]["role"] == "system"
    assert fitted.messages[1]["role"] == "user"
    assert fitted.prompt_tokens <= 29


def test_a_question_that_cannot_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ContextOverflow) as caught:
        fit(FakeModel(context_length=50), "", conversation([3, 40]), PARAMS)
    assert caught.value.details == {
        "prompt_tokens": 41,
        "model": "fake",
        "limit": 30,
        "context": 50,
        "reserved": 20,
    }


def test_a_long_answer_limit_leaves_half_of_the_context_to_the_conversation() -> None:
    fitted = fit(
        FakeModel(context_length=50), "", conversation([20]), SamplingParams(max_new_tokens=5000)
    )
    assert fitted.max_new_tokens == 50 - 21


@given(st.lists(st.integers(1, 35), min_size=1, max_size=30), st.integers(60, 300))
def test_no_turn_is_left_out_that_would_fit(lengths: list[int], context: int) -> None:
    model, history = FakeModel(context_length=context), conversation(lengths)
    fitted = fit(model, "", history, PARAMS)
    assert list(fitted.messages) == history[fitted.left_out :]
    assert fitted.prompt_tokens == model.count_tokens(fitted.messages) <= context - 20
    if fitted.left_out:
        assert model.count_tokens(history[fitted.left_out - 2 :]) > context - 20


def test_a_conversation_much_longer_than_the_context_is_not_counted_whole() -> None:
    counted = []

    class Counting(FakeModel):
        def count_tokens(self, messages: list[Message]) -> int:  # type: ignore[override]
            counted.append(len(messages))
            return super().count_tokens(messages)

    fit(Counting(context_length=100), "", conversation([5] * 5000), PARAMS)
    assert max(counted) < 100


def test_a_shorter_limit_than_the_models_own() -> None:
    model = FakeModel(context_length=1000)
    fitted = fit(model, "", conversation([10, 10, 5]), PARAMS, context=40)
    assert fitted.prompt_tokens + fitted.max_new_tokens <= 40
    assert fitted.left_out == 2
