"""What one answer has read, the next one need not read again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_backend.engine.local import LocalEngine
from glm_backend.engine.prefix_cache import PrefixCache
from glm_backend.engine.request import Finished, SamplingParams, Token
from tests.engine.fake_runner import NAN_AFTER, VOCAB, FakeRunner, of_all

GREEDY = SamplingParams(temperature=0, max_new_tokens=5)


def engine_on(runner: FakeRunner, **changes: int) -> LocalEngine:
    options = {"context_length": 400, "max_concurrent": 2, "kept": 2} | changes
    return LocalEngine(runner, name="fake", vocab_size=VOCAB, stop_ids=frozenset(), **options)


@pytest.fixture
def runner() -> Iterator[FakeRunner]:
    runner = FakeRunner(follows=of_all)
    yield runner
    runner.gate.set()


def asked(engine: LocalEngine, prompt: list[int]) -> tuple[list[int], int]:
    """The answer, and how many tokens of the prompt were there already."""
    *tokens, end = engine.submit(prompt, GREEDY).events()
    assert isinstance(end, Finished)
    assert end.usage.prompt_tokens == len(prompt)
    return [t.token_id for t in tokens if isinstance(t, Token)], end.usage.cached_tokens


def expected(prompt: list[int], tokens: int = 5) -> list[int]:
    text = list(prompt)
    for _ in range(tokens):
        text.append(of_all(text))
    return text[len(prompt) :]


def test_the_next_turn_reads_only_what_is_new(runner: FakeRunner) -> None:
    engine = engine_on(runner)
    first = list(range(9)) * 10
    answer, cached = asked(engine, first)
    assert (answer, cached) == (expected(first), 0)
    before = sum(map(sum, runner.batches))
    second = [*first, *answer, 1, 2, 3]
    answer, cached = asked(engine, second)
    assert answer == expected(second)
    assert cached == len(first) + 4  # the last token of the answer was never read
    assert sum(map(sum, runner.batches)) - before == len(second) - cached + 4
    assert runner.copies == []
    assert engine.stats().reused_tokens == cached
    assert engine.stats().reuses == 1
    engine.close()


def test_a_regenerated_answer_reads_one_token(runner: FakeRunner) -> None:
    engine = engine_on(runner)
    prompt = list(range(9)) * 5
    once, _ = asked(engine, prompt)
    again, cached = asked(engine, prompt)
    assert (again, cached) == (once, len(prompt) - 1)
    engine.close()


def test_an_edited_question_keeps_what_stands_before_it(runner: FakeRunner) -> None:
    engine = engine_on(runner)
    head, tail = list(range(9)) * 8, [1, 1, 1, 1]
    asked(engine, head + tail)
    answer, cached = asked(engine, [*head, 2, 2, 2])
    assert (answer, cached) == (expected([*head, 2, 2, 2]), len(head))
    engine.close()


def test_a_shared_system_prompt_is_copied_also_while_its_owner_is_answered(
    runner: FakeRunner,
) -> None:
    engine = engine_on(runner)
    system = list(range(9)) * 4
    long = engine.submit([*system, 1, 2], SamplingParams(temperature=0, max_new_tokens=300))
    events = long.events()
    next(events)
    answer, cached = asked(engine, [*system, 5, 5])
    assert (answer, cached) == (expected([*system, 5, 5]), len(system))
    assert [tokens for _, _, tokens in runner.copies] == [len(system)]
    long.cancel()
    engine.close()


def test_a_short_beginning_does_not_cost_a_long_conversation_its_slot(runner: FakeRunner) -> None:
    engine = engine_on(runner)
    system, talk = [3] * 10, list(range(9)) * 20
    asked(engine, system + talk)
    asked(engine, [*system, 4, 4, 4])
    _, cached = asked(engine, [*system, *talk, 1])
    assert cached == len(system) + len(talk)
    engine.close()


def test_what_was_used_longest_ago_goes_first(runner: FakeRunner) -> None:
    engine = engine_on(runner, max_concurrent=1, kept=1)
    one, two, three = ([digit] * 40 for digit in (1, 2, 3))
    asked(engine, one)
    asked(engine, two)
    asked(engine, three)  # in the place of one
    assert asked(engine, [*two, 7])[1] == len(two)
    assert asked(engine, [*one, 7])[1] == 0
    engine.close()


def test_kept_conversations_make_room_where_memory_is_short(runner: FakeRunner) -> None:
    engine = engine_on(runner, kv_tokens=100)
    one, two = [1] * 60, [2] * 60
    asked(engine, one)
    asked(engine, two)
    assert engine.stats().kv_tokens <= 100
    assert runner.cleared
    assert asked(engine, [*two, 7])[1] == len(two)
    engine.close()


def test_requests_wait_for_memory_and_too_long_answers_are_cut(runner: FakeRunner) -> None:
    engine = engine_on(runner, kv_tokens=100)
    params = SamplingParams(temperature=0, max_new_tokens=1000)
    both = [engine.submit([digit] * 20, params) for digit in (1, 2)]
    for generation in both:
        tokens = [e for e in generation.events() if isinstance(e, Token)]
        assert len(tokens) == 80
    assert max(len(batch) for batch in runner.batches) == 1  # one after the other
    engine.close()


def test_what_held_a_number_that_was_none_is_not_read_again() -> None:
    runner = FakeRunner(nan=True)
    engine = engine_on(runner)
    broken = [*range(7), *range(7), NAN_AFTER]
    list(engine.submit(broken, GREEDY).events())
    assert asked_anything(engine, [*broken, 1]) == 0
    cut_short = engine.submit([1] * 300, GREEDY)
    cut_short.cancel()
    list(cut_short.events())
    engine.close()


def asked_anything(engine: LocalEngine, prompt: list[int]) -> int:
    *_, end = engine.submit(prompt, GREEDY).events()
    return end.usage.cached_tokens  # type: ignore[union-attr]


def test_a_model_that_cannot_go_back_keeps_nothing() -> None:
    runner = FakeRunner(follows=of_all, rewinds=False)
    engine = engine_on(runner)
    prompt = list(range(9)) * 5
    for _ in range(2):
        assert asked(engine, prompt) == (expected(prompt), 0)
    assert runner.held == {}
    engine.close()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.integers(0, 30)),
        min_size=1,
        max_size=25,
    ),
    st.integers(64, 300),
)
def test_whatever_comes_and_goes_a_slot_holds_what_it_is_said_to(
    prompts: list[tuple[list[int], int]], budget: int
) -> None:
    runner = FakeRunner(follows=of_all)
    runner.open(4, 400)
    cache = PrefixCache(runner, 4, budget)
    busy: list[tuple[int, list[int]]] = []
    for prompt, more in prompts:
        reserve = min(len(prompt) + more, budget)
        if len(prompt) > reserve:
            continue
        place = cache.take(prompt, reserve)
        if place is None:
            assert busy, "with nobody in the way there is room"
            slot, held = busy.pop(0)
            cache.give_back(slot, held, clean=bool(len(held) % 3))
            continue
        assert place.slot not in [slot for slot, _ in busy]
        assert place.known < len(prompt)
        assert runner.held.get(place.slot, [])[: place.known] == prompt[: place.known]
        runner.held[place.slot] = list(prompt)
        busy.append((place.slot, list(prompt)))
        assert cache.held <= budget
    for slot, held in busy:
        cache.give_back(slot, held, clean=True)
    assert all(slot.free for slot in cache._slots)
