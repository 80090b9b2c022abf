"""Guesses from the text so far: the same tokens, fewer passes, and an end where they do not pay."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from glm_backend.engine.guess_cost import GuessCost
from glm_backend.engine.local import LocalEngine
from glm_backend.engine.request import Finished, SamplingParams, Token
from glm_backend.engine.speculation import PromptLookup
from tests.engine.fake_runner import VOCAB, FakeRunner, of_all

POEM = [1, 2, 3, 4, 5, 6, 7, 8, 3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 8, 0]


def recites(tokens: Sequence[int]) -> int:
    """Goes on as the poem goes on after the last three tokens, else begins it."""
    for place in range(len(POEM) - 3):
        if list(tokens[-3:]) == POEM[place : place + 3]:
            return POEM[place + 3]
    return POEM[(len(tokens)) % 3]


def answered(
    runner: FakeRunner, prompt: list[int], params: SamplingParams
) -> tuple[list[int], Finished]:
    engine = LocalEngine(
        runner, name="fake", context_length=600, vocab_size=VOCAB, stop_ids=frozenset()
    )
    *tokens, end = engine.submit(prompt, params).events()
    engine.close()
    assert isinstance(end, Finished)
    return [t.token_id for t in tokens if isinstance(t, Token)], end


def plainly(runner: FakeRunner, prompt: list[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(runner.follows(text))
    return text[len(prompt) :]


def test_a_text_that_repeats_itself_takes_fewer_passes() -> None:
    runner = FakeRunner(follows=recites)
    prompt = [*POEM, 0, 9, 1, 2, 3]
    tokens, end = answered(runner, prompt, SamplingParams(temperature=0, max_new_tokens=200))
    assert tokens == plainly(runner, prompt, 200)
    assert end.usage.completion_tokens == 200
    assert len(runner.batches) < 120
    assert any(len(batch) == 1 and batch[0] > 1 for batch in runner.batches[1:])


def test_a_guess_never_makes_an_answer_too_long() -> None:
    for length in range(1, 30):
        runner = FakeRunner(follows=recites)
        tokens, _ = answered(
            runner, [*POEM, 1, 2, 3], SamplingParams(temperature=0, max_new_tokens=length)
        )
        assert tokens == plainly(runner, [*POEM, 1, 2, 3], length)


def test_an_end_among_the_guessed_tokens_ends_the_answer() -> None:
    runner = FakeRunner(follows=recites)
    engine = LocalEngine(
        runner, name="fake", context_length=600, vocab_size=VOCAB, stop_ids=frozenset({8})
    )
    *tokens, end = engine.submit([*POEM, 1, 2, 3], SamplingParams(temperature=0)).events()
    engine.close()
    assert [t.token_id for t in tokens if isinstance(t, Token)] == [4, 5, 6, 7]
    assert isinstance(end, Finished)
    assert end.reason == "stop"


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_sampled_tokens_are_those_of_an_engine_that_does_not_guess(penalty: float) -> None:
    params = SamplingParams(
        temperature=1.3, top_p=0.95, repetition_penalty=penalty, seed=4, max_new_tokens=150
    )
    prompt = [*POEM, *POEM, 1, 2, 3]
    guessing, plain = FakeRunner(follows=recites), FakeRunner(follows=recites, rewinds=False)
    assert answered(guessing, prompt, params)[0] == answered(plain, prompt, params)[0]
    assert sum(map(sum, guessing.batches)) > sum(map(sum, plain.batches))  # it did guess


def test_where_guesses_are_wrong_they_become_rare() -> None:
    """A step with a guess takes a fifth longer here, and every guess is wrong."""
    lookup = PromptLookup([1, 2, 3] * 10)
    spent = 0.0
    random = torch.Generator().manual_seed(0)
    for _ in range(2000):
        guess = lookup.propose(100, 1, lambda rows: 1 + 0.1 * (rows - 1))
        spent += 1 + 0.1 * len(guess)
        if guess:
            lookup.learn(len(guess), 0, 1, lambda rows: 1 + 0.1 * (rows - 1))
        lookup.extend([int(torch.randint(1, 4, (1,), generator=random))])
    assert spent / 2000 < 1.03


def test_a_guess_that_costs_more_than_it_can_gain_is_not_made() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 1, 2, 3])
    lookup._lost = 100
    assert lookup.propose(100, 1, float) == []
    assert lookup.propose(100, 1, lambda rows: 1.0) == [4, 1, 2, 3]


def test_guessing_knows_only_what_stands_before() -> None:
    assert PromptLookup([1, 2, 3]).propose(8, 1, lambda rows: 1.0) == []
    assert PromptLookup([5, 1, 2, 3, 6, 1, 2, 3]).propose(2, 1, lambda rows: 1.0) == [6, 1]
    assert PromptLookup(list(range(9)) * 2).propose(0, 1, lambda rows: 1.0) == []


def test_of_all_is_not_guessed_right_by_chance() -> None:
    runner = FakeRunner(follows=of_all)
    tokens, _ = answered(runner, list(range(9)), SamplingParams(temperature=0, max_new_tokens=100))
    assert tokens == plainly(runner, list(range(9)), 100)


def test_wrong_guesses_of_many_answers_cost_no_more_than_those_of_one() -> None:
    def cost(rows: int) -> float:
        return 20.0 + rows

    def lost(answers: int) -> float:
        """Steps' worth of time, of a hundred steps in which no guess is right."""
        lookups = [PromptLookup([1, 2, 3, 4] * 4) for _ in range(answers)]
        sum_ = 0.0
        for _ in range(100):
            for lookup in lookups:
                if guess := lookup.propose(8, answers, cost):
                    lookup.learn(len(guess), 0, answers, cost)
                    sum_ += cost(answers + len(guess)) / cost(answers) - 1
        return sum_

    assert 0.5 < lost(1) < 3
    assert 0.5 < lost(16) < 4


# --- what a guess costs


def _learned(costs: GuessCost, answers: int, *steps: tuple[int, float]) -> GuessCost:
    """steps: guesses and seconds."""
    for guesses, seconds in steps:
        costs.learn(answers, guesses, seconds)
    return costs


def test_steps_right_behind_each_other_say_what_a_guess_costs() -> None:
    costs = _learned(GuessCost(), 2, (0, 1.0), (4, 1.4))
    assert costs.times(2, 4) == pytest.approx(1.4)
    assert costs.times(2, 2) == pytest.approx(1.2)
    assert costs.times(2, 8) == pytest.approx(1.8)
    assert costs.cost(2)(2) == 1
    assert costs.cost(2)(6) == pytest.approx(1.4)
    assert costs.share(2, 4)(3) == pytest.approx(1.1)
    assert 1 < costs.times(16, 1) < costs.times(1, 1) < 1.2  # not known yet


def test_a_machine_that_became_slower_meanwhile_does_not_make_guesses_dear_or_cheap() -> None:
    costs = _learned(GuessCost(), 1, (0, 1.0), (1, 1.5))
    for _ in range(50):
        _learned(costs, 1, (0, 9.0), (0, 9.0), (1, 9.0 * 1.5))
    assert costs.times(1, 1) == pytest.approx(1.5, rel=0.1)


def test_nobody_guesses_where_there_is_nothing_to_compare_with() -> None:
    costs = GuessCost()
    assert not costs.may_guess(1)
    _learned(costs, 1, (0, 1.0))
    assert costs.may_guess(1)
    assert not costs.may_guess(2)
    steps = 0
    while costs.may_guess(1):
        _learned(costs, 1, (3, 1.0))
        steps += 1
    assert 10 < steps < 50
    assert _learned(costs, 1, (0, 1.0)).may_guess(1)
    assert not _learned(costs, 2, (1, 1.0)).may_guess(2)
