"""Prompts read beside answers: part by part, in turn, given up, and the same as in one pass."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import pytest
import torch

from glm_backend.engine.batch import Stretch
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.local import LocalEngine
from glm_backend.engine.prefix_runner import PrefixRunner
from glm_backend.engine.reading import Reading
from glm_backend.engine.request import Failed, Finished, Generation, SamplingParams, Token
from glm_backend.engine.runner import Parts, Runner, finished, runner_for
from glm_backend.engine.scheduler import Planned, Sequence
from glm_backend.models.chatglm1 import ChatGLM1, ChatGLM1Config
from tests.engine.fake_runner import POISON, VOCAB, FakeRunner, of_all
from tests.engine.test_runner import prompts_of, small

PARTS = 12
LONG = SamplingParams(temperature=0, max_new_tokens=1500)
SHORT = SamplingParams(temperature=0, max_new_tokens=5)


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner(follows=of_all, parts=PARTS, part_s=0.002)


@pytest.fixture
def engine(runner: FakeRunner) -> Iterator[LocalEngine]:
    engine = LocalEngine(
        runner, name="fake", context_length=2000, vocab_size=VOCAB, stop_ids=frozenset()
    )
    yield engine
    engine.close()


@pytest.fixture
def answering(engine: LocalEngine) -> Generation:
    """An answer under way, beside which prompts are read."""
    generation = engine.submit([1, 2], LONG)
    next(generation.events())
    return generation


def said(generation: Generation) -> list[int]:
    return [event.token_id for event in generation.events() if isinstance(event, Token)]


def expected(prompt: list[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(of_all(text))
    return text[len(prompt) :]


def until_a_rest(runner: FakeRunner) -> None:
    rests = len(runner.rests)
    while len(runner.rests) == rests:
        time.sleep(0.0005)


def test_an_answer_goes_on_between_the_parts_of_a_prompt(
    engine: LocalEngine, runner: FakeRunner, answering: Generation
) -> None:
    runner.rests.clear()
    assert said(engine.submit([3] * 14, SHORT)) == expected([3] * 14, 5)
    assert len(set(runner.rests)) > PARTS / 2, "several parts were taken in one step"
    answering.cancel()
    assert said(answering) == expected([1, 2], 1500)[1 : answering.completion_tokens]


def test_a_short_question_does_not_wait_for_a_long_document(
    engine: LocalEngine, answering: Generation
) -> None:
    document = engine.submit([4] * 400, SHORT)
    question = engine.submit([5] * 10, SHORT)
    assert said(question) == expected([5] * 10, 5)
    assert document.completion_tokens == 0
    assert said(document) == expected([4] * 400, 5)
    answering.cancel()


def test_a_long_document_does_not_wait_for_ever(engine: LocalEngine, answering: Generation) -> None:
    document = engine.submit([4] * 100, SHORT)
    questions = 0
    while not document.completion_tokens:
        list(engine.submit([questions % 9] * 3, SHORT).events())
        questions += 1
        assert questions < 200
    assert said(document) == expected([4] * 100, 5)
    answering.cancel()


def test_a_prompt_nobody_waits_for_any_more_is_not_read_on(
    engine: LocalEngine, runner: FakeRunner, answering: Generation
) -> None:
    document = engine.submit([6] * 16, SHORT)
    until_a_rest(runner)
    document.cancel()
    end = list(document.events())[-1]
    assert isinstance(end, Finished)
    assert end.reason == "cancelled"
    assert all(16 not in batch for batch in runner.batches)
    assert said(engine.submit([6] * 16, SHORT)) == expected([6] * 16, 5)
    answering.cancel()


def test_one_of_two_prompts_read_together_is_cancelled(
    engine: LocalEngine, runner: FakeRunner, answering: Generation
) -> None:
    with engine._wake:
        kept, dropped = (engine.submit([token] * 8, SHORT) for token in (7, 8))
    until_a_rest(runner)
    dropped.cancel()
    assert said(kept) == expected([7] * 8, 5)
    assert [8, 8] in runner.batches
    assert list(dropped.events())[-1].reason == "cancelled"  # type: ignore[union-attr]
    assert said(engine.submit([8] * 8, SHORT)) == expected([8] * 8, 5)
    answering.cancel()


def test_a_poisoned_prompt_fails_without_those_it_was_read_with(
    engine: LocalEngine, answering: Generation
) -> None:
    with engine._wake:
        fine, broken = engine.submit([7] * 8, SHORT), engine.submit([POISON], SHORT)
    assert said(fine) == expected([7] * 8, 5)
    assert isinstance(list(broken.events())[-1], Failed)
    answering.cancel()


def test_a_closed_engine_gives_up_what_is_being_read(runner: FakeRunner) -> None:
    engine = LocalEngine(
        runner, name="fake", context_length=2000, vocab_size=VOCAB, stop_ids=frozenset()
    )
    answering = engine.submit([1, 2], LONG)
    next(answering.events())
    document = engine.submit([6] * 16, SHORT)
    until_a_rest(runner)
    engine.close()
    assert list(document.events())[-1].reason == "cancelled"  # type: ignore[union-attr]


def reading_of(runner: Runner, prompt: list[int]) -> Reading:
    generation = Generation(prompt, SHORT, max_new_tokens=5, stop_ids=frozenset())
    sequence = Sequence(generation, 0, 0, prompt, sampler=None, lookup=None)  # type: ignore[arg-type]
    return Reading(runner, [Planned(sequence, Stretch(0, 0, prompt))])


def test_a_reading_takes_one_part_at_least_and_no_more_than_it_has_time_for() -> None:
    runner = FakeRunner(follows=of_all, parts=5, part_s=0.02)
    runner.open(1, 10)
    reading = reading_of(runner, [1, 2, 3])
    assert reading.advance(0) == (1, None)
    taken, logits = reading.advance(0.05)
    assert taken in {1, 2}
    assert logits is None
    rest, logits = reading.advance(math.inf)
    assert taken + rest == 3  # behind the last there is no rest
    assert logits is not None
    assert int(logits[0].argmax()) == of_all([1, 2, 3])


def first_chatglm() -> PrefixRunner:
    torch.manual_seed(0)
    config = ChatGLM1Config(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        mask_token_id=60,
        gmask_token_id=61,
        bos_token_id=62,
    )
    return PrefixRunner(ChatGLM1(config).eval())


def one_part_after_another(runner: Runner, parts: Parts, between: Stretch) -> torch.Tensor:
    """The logits of a pass between whose parts others take theirs, without any notice."""
    rests = 0
    while True:
        try:
            next(parts)
        except StopIteration as end:
            assert rests == runner.parts > 1
            logits: torch.Tensor = end.value
            return logits
        assert not torch.is_inference_mode_enabled()
        runner.forward([between])
        rests += 1


def assert_a_prompt_in_parts_is_the_same(runner: Runner) -> None:
    runner.open(3, 200)
    prompt, other = prompts_of([100, 30], 128)
    expected = runner.forward([Stretch(0, 0, prompt)])
    runner.forward([Stretch(1, 0, other)])
    answer = Stretch(1, 30, [5], answering=True)
    alone = runner.forward([answer])
    given_up = runner.read([Stretch(2, 0, other)])
    next(given_up)
    del given_up
    parts = runner.read([Stretch(2, 0, prompt)])
    assert torch.equal(one_part_after_another(runner, parts, answer), expected)
    assert torch.equal(runner.forward([answer]), alone)
    assert torch.equal(finished(runner.read([Stretch(2, 0, prompt)])), expected)


@pytest.mark.parametrize("kind", ["llama", "glm4", "qwen2"])
def test_a_prompt_read_in_parts_gives_the_same_to_the_last_bit(kind: str) -> None:
    runner = runner_for(small(kind))
    assert isinstance(runner, LeanRunner)
    assert_a_prompt_in_parts_is_the_same(runner)


def test_so_does_a_prompt_of_the_first_chatglm() -> None:
    runner = first_chatglm()
    runner.open(2, 100)
    prompt, other = ([*ids, 61, 62] for ids in prompts_of([50, 20], 60))
    expected = runner.forward([Stretch(0, 0, prompt)])
    runner.forward([Stretch(1, 0, other)])
    answer = Stretch(1, 22, [5], answering=True)
    parts = runner.read([Stretch(0, 0, prompt)])
    assert torch.equal(one_part_after_another(runner, parts, answer), expected)
