"""Many at once: turns, places, memory that runs out, and whatever order things come in."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_backend.engine.local import LocalEngine
from glm_backend.engine.request import Failed, Finished, Generation, SamplingParams, Token
from glm_backend.errors import AnswerTooLarge, EngineBusy, InternalError
from tests.engine.fake_runner import POISON, VOCAB, FakeRunner, of_all

GREEDY = SamplingParams(temperature=0, max_new_tokens=8)


def engine_on(runner: FakeRunner, **changes: int) -> LocalEngine:
    options = {"context_length": 500, "max_concurrent": 4, "max_waiting": 64} | changes
    return LocalEngine(runner, name="fake", vocab_size=VOCAB, stop_ids=frozenset(), **options)


def expected(prompt: list[int], count: int) -> list[int]:
    text = list(prompt)
    for _ in range(count):
        text.append(of_all(text))
    return text[len(prompt) :]


def tokens_of(generation: Generation) -> list[int]:
    return [e.token_id for e in generation.events() if isinstance(e, Token)]


def test_clients_take_turns_whoever_asked_more_often() -> None:
    runner = FakeRunner(follows=of_all)
    engine = engine_on(runner, max_concurrent=2)
    with engine._wake:  # everybody is in line before the first step
        greedy = [engine.submit([1, i], GREEDY, client="a") for i in range(6)]
        modest = engine.submit([2, 2], GREEDY, client="b")
        assert [g.place for g in (*greedy, modest)] == [1, 3, 4, 5, 6, 7, 2]
    for generation in (*greedy, modest):
        assert len(tokens_of(generation)) == 8
    engine.close()
    # It had one of the first places, though six stood before it.
    begun = [g._first_token_s or 0 for g in greedy]
    assert sum(time_s < (modest._first_token_s or 0) for time_s in begun) <= 3


def test_clients_take_turns_where_one_is_answered_at_a_time() -> None:
    runner = FakeRunner(follows=of_all)
    engine = engine_on(runner, max_concurrent=1)
    with engine._wake:
        greedy = [engine.submit([1, i], GREEDY, client="a") for i in range(4)]
        modest = [engine.submit([2, i], GREEDY, client="b") for i in range(2)]
        assert [g.place for g in (*greedy, *modest)] == [1, 3, 5, 6, 2, 4]
    for generation in (*greedy, *modest):
        list(generation.events())
    in_order = sorted([*greedy, *modest], key=lambda g: g._first_token_s or 0)
    assert "".join(g.client for g in in_order) == "ababaa"
    engine.close()


def test_a_request_knows_its_place_in_line() -> None:
    runner = FakeRunner(follows=of_all)
    engine = engine_on(runner, max_concurrent=1)
    runner.gate.clear()
    generations = [engine.submit([1, i], GREEDY) for i in range(4)]
    while generations[0].place:
        time.sleep(0.001)
    assert [g.place for g in generations] == [0, 1, 2, 3]
    generations[2].cancel()
    runner.gate.set()
    for generation in generations:
        list(generation.events())
    assert {g.place for g in generations} == {0}
    engine.close()


def test_of_a_thousand_at_once_as_many_are_taken_as_was_said() -> None:
    runner = FakeRunner(follows=of_all)
    engine = engine_on(runner, max_waiting=50)
    runner.gate.clear()
    taken: list[tuple[list[int], Generation]] = []
    refused: list[EngineBusy] = []
    lock = threading.Lock()

    def ask(number: int) -> None:
        prompt = [number % 9, number // 9 % 9, number // 81 % 9, number // 729]
        try:
            generation = engine.submit(prompt, GREEDY, client=str(number % 7))
        except EngineBusy as error:
            with lock:
                refused.append(error)
        else:
            with lock:
                taken.append((prompt, generation))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) + len(taken) == 1000
    assert 50 <= len(taken) <= 54
    assert all("50 requests" in str(error) for error in refused)
    runner.gate.set()
    for prompt, generation in taken:
        assert tokens_of(generation) == expected(prompt, 8)
    engine.close()


@pytest.mark.parametrize("parts", [1, 3])
def test_where_memory_runs_out_the_largest_ends_and_the_others_go_on(parts: int) -> None:
    runner = FakeRunner(follows=of_all, memory=120, parts=parts)
    engine = engine_on(runner)
    runner.gate.clear()
    params = SamplingParams(temperature=0, max_new_tokens=40)
    large, *small = [engine.submit([n] * length, params) for n, length in ((1, 70), (2, 5), (3, 5))]
    runner.gate.set()
    *_, end = large.events()
    assert isinstance(end, Failed)
    assert isinstance(end.error, AnswerTooLarge)
    assert "memory" in str(end.error)
    for generation, prompt in zip(small, ([2] * 5, [3] * 5), strict=True):
        assert tokens_of(generation) == expected(prompt, 40)
    assert engine.stats().running == 0
    engine.close()


@pytest.mark.parametrize("parts", [1, 3])
def test_a_storm_of_cancellations_leaves_nothing_behind(parts: int) -> None:
    runner = FakeRunner(follows=of_all, parts=parts)
    engine = engine_on(runner, max_waiting=1000)
    params = SamplingParams(temperature=0, max_new_tokens=400)
    generations = [engine.submit([n % 9, n // 9 % 9, n // 81], params) for n in range(300)]
    for generation in generations:
        generation.cancel()
    ends = Counter(list(g.events())[-1].reason for g in generations)  # type: ignore[union-attr]
    assert set(ends) <= {"cancelled", "length"}
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert tokens_of(engine.submit([4, 4], GREEDY)) == expected([4, 4], 8)
    engine.close()


Asked = tuple[list[int], int, str]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(0, 8), min_size=1, max_size=60),
            st.integers(1, 30),
            st.sampled_from(["", "", "", "cancel", "poison", "unread", "repeat"]),
        ),
        min_size=1,
        max_size=14,
    ),
    memory=st.sampled_from([10**9, 10**9, 150]),
    kept=st.integers(0, 3),
    kv_tokens=st.sampled_from([None, None, 120]),
    kind=st.tuples(st.booleans(), st.sampled_from([1, 3])),
)
def test_whatever_comes_every_request_ends_once_and_says_only_its_own(
    requests: list[Asked],
    memory: int,
    kept: int,
    kv_tokens: int | None,
    kind: tuple[bool, int],
) -> None:
    rewinds, parts = kind
    runner = FakeRunner(follows=of_all, memory=memory, rewinds=rewinds, parts=parts)
    engine = engine_on(runner, max_waiting=200, kept=kept, kv_tokens=kv_tokens)  # type: ignore[arg-type]
    asked: list[tuple[Asked, Generation]] = []
    for own, length, fate in requests:
        before = asked[-1][0][0] if fate == "repeat" and asked else []
        before = [token for token in before if token != POISON]
        prompt = [*before, *own, *([POISON] if fate == "poison" else [])]
        params = SamplingParams(temperature=0, max_new_tokens=length)
        generation = engine.submit(prompt, params)
        asked.append(((prompt, length, fate), generation))
        if fate == "cancel":
            generation.cancel()
    for (prompt, length, fate), generation in asked:
        *tokens, end = generation.events()
        said = [token.token_id for token in tokens if isinstance(token, Token)]
        assert said == expected(prompt, length)[: len(said)]
        assert generation.ended
        if isinstance(end, Failed):
            assert isinstance(end.error, AnswerTooLarge if fate != "poison" else InternalError)
            assert fate == "poison" or memory < 10**9
        elif isinstance(end, Finished) and end.reason == "length":
            assert len(said) == length or kv_tokens
        else:
            assert fate == "cancel"
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert all(slot.free for slot in engine._prefixes._slots)
    assert stats.kv_tokens <= stats.kv_limit
    engine.close()


@pytest.mark.parametrize("kept", [0, 4])
def test_an_engine_that_swaps_ends_what_runs_as_stopped(kept: int) -> None:
    runner = FakeRunner(follows=of_all)
    engine = engine_on(runner, kept=kept)
    params = SamplingParams(temperature=0, max_new_tokens=450)
    generations = [engine.submit([n], params) for n in range(3)]
    for generation in generations:
        next(generation.events())
    engine.close()
    ends = [list(g.events())[-1] for g in generations]
    assert all(isinstance(end, Finished) for end in ends)
    assert {end.reason for end in ends} <= {"cancelled", "length"}  # type: ignore[union-attr]
