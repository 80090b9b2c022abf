"""The engine's loop, on a model whose every move is known."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_backend.engine.local import LocalEngine
from glm_backend.engine.request import Event, Failed, Finished, Generation, SamplingParams, Token
from glm_backend.errors import (
    ContextOverflow,
    EngineBusy,
    EngineClosed,
    InternalError,
    InvalidParameter,
    NumericalError,
)
from tests.engine.fake_runner import END, NAN_AFTER, POISON, VOCAB, FakeRunner, of_all

GREEDY = SamplingParams(temperature=0, max_new_tokens=50)


def engine_on(runner: FakeRunner, **changes: int) -> LocalEngine:
    options = {"context_length": 100, "max_concurrent": 4, "max_waiting": 8} | changes
    return LocalEngine(runner, name="fake", vocab_size=VOCAB, stop_ids=frozenset({END}), **options)


@pytest.fixture
def runner() -> Iterator[FakeRunner]:
    runner = FakeRunner()
    yield runner
    runner.gate.set()


@pytest.fixture
def engine(runner: FakeRunner) -> Iterator[LocalEngine]:
    engine = engine_on(runner)
    yield engine
    runner.gate.set()
    engine.close()


def answer(generation: Generation) -> tuple[list[int], Event]:
    *tokens, last = list(generation.events())
    return [event.token_id for event in tokens if isinstance(event, Token)], last


def test_tokens_come_in_order_and_the_end_token_is_not_one_of_them(
    engine: LocalEngine,
) -> None:
    tokens, end = answer(engine.submit([1, 2, 3], GREEDY))
    assert tokens == [4, 5, 6, 7, 8]
    assert isinstance(end, Finished)
    assert end.reason == "stop"
    assert end.usage.prompt_tokens == 3
    assert end.usage.completion_tokens == 5
    assert end.usage.ttft_s is not None
    assert 0 <= end.usage.ttft_s <= end.usage.duration_s


def test_an_answer_ends_at_its_length(engine: LocalEngine) -> None:
    tokens, end = answer(engine.submit([1], SamplingParams(temperature=0, max_new_tokens=2)))
    assert (tokens, getattr(end, "reason", None)) == ([2, 3], "length")


def test_an_answer_ends_where_the_context_does(runner: FakeRunner) -> None:
    engine = engine_on(runner, context_length=5)
    tokens, end = answer(engine.submit([1, 2, 3], GREEDY))
    assert (tokens, getattr(end, "reason", None)) == ([4, 5], "length")
    engine.close()


def test_the_end_token_can_be_ignored(engine: LocalEngine) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=4)
    tokens, _ = answer(engine.submit([7], params, ignore_eos=True))
    assert tokens == [8, 9, 1, 2]


def test_requests_share_a_step(engine: LocalEngine, runner: FakeRunner) -> None:
    runner.gate.clear()
    generations = [engine.submit([start], GREEDY) for start in (1, 2, 3)]
    runner.gate.set()
    assert [answer(g)[0] for g in generations] == [
        [2, 3, 4, 5, 6, 7, 8],
        [3, 4, 5, 6, 7, 8],
        [4, 5, 6, 7, 8],
    ]
    assert max(len(batch) for batch in runner.batches) >= 2


def test_a_long_prompt_is_read_in_portions_beside_an_answer(runner: FakeRunner) -> None:
    engine = engine_on(runner, context_length=2000)
    runner.gate.clear()
    short = engine.submit([1], GREEDY)
    long = engine.submit([1] * 500, GREEDY)
    runner.gate.set()
    assert answer(short)[0] == [2, 3, 4, 5, 6, 7, 8]
    assert answer(long)[0] == [2, 3, 4, 5, 6, 7, 8]
    mixed = [batch for batch in runner.batches if len(batch) == 2]
    assert any(1 in batch and max(batch) > 1 for batch in mixed)
    engine.close()


def test_a_poisoned_request_fails_alone(engine: LocalEngine, runner: FakeRunner) -> None:
    runner.gate.clear()
    generations = [engine.submit(prompt, GREEDY) for prompt in ([1], [POISON], [3])]
    runner.gate.set()
    answers = [answer(g) for g in generations]
    assert [tokens for tokens, _ in answers] == [[2, 3, 4, 5, 6, 7, 8], [], [4, 5, 6, 7, 8]]
    assert [type(end) for _, end in answers] == [Finished, Failed, Finished]
    assert isinstance(answers[1][1].error, InternalError)


def test_numbers_that_are_not_finite_end_that_one_request() -> None:
    runner = FakeRunner(nan=True)
    engine = engine_on(runner)
    broken, fine = engine.submit([NAN_AFTER - 1], GREEDY), engine.submit([8], GREEDY)
    tokens, end = answer(broken)
    assert tokens == [NAN_AFTER]
    assert isinstance(end, Failed)
    assert isinstance(end.error, NumericalError)
    assert answer(fine)[1].reason == "stop"
    assert runner.cleared  # nobody reads what it left behind
    engine.close()


def test_cancel_takes_effect_within_one_step(runner: FakeRunner) -> None:
    engine = engine_on(runner, context_length=5000)
    params = SamplingParams(temperature=0, max_new_tokens=4000)
    generation = engine.submit([1], params, ignore_eos=True)
    events = generation.events()
    next(events)
    runner.gate.clear()
    passes = len(runner.batches)
    generation.cancel()
    runner.gate.set()
    assert next(e for e in events if not isinstance(e, Token)).reason == "cancelled"
    assert len(runner.batches) <= passes + 2  # one may have been under way, one at the gate
    engine.close()


def test_cancel_reaches_a_request_that_still_waits(engine: LocalEngine, runner: FakeRunner) -> None:
    runner.gate.clear()
    running = [engine.submit([1], GREEDY) for _ in range(5)]
    waiting = running.pop()
    waiting.cancel()
    runner.gate.set()
    tokens, end = answer(waiting)
    assert (tokens, end.reason) == ([], "cancelled")
    assert all(answer(g)[1].reason == "stop" for g in running)


def test_what_can_never_fit_is_refused_with_the_numbers(engine: LocalEngine) -> None:
    with pytest.raises(ContextOverflow, match="100"):
        engine.submit([1] * 100, GREEDY)


@pytest.mark.parametrize("prompt", [[], [VOCAB], [-1]])
def test_token_ids_that_do_not_exist_are_refused(engine: LocalEngine, prompt: list[int]) -> None:
    with pytest.raises(InvalidParameter):
        engine.submit(prompt, GREEDY)


def test_a_full_line_refuses_the_next(runner: FakeRunner) -> None:
    engine = engine_on(runner, max_concurrent=1, max_waiting=2)
    runner.gate.clear()
    with pytest.raises(EngineBusy, match="2"):
        for _ in range(10):
            engine.submit([1], GREEDY)
    runner.gate.set()
    engine.close()


def test_a_consumer_that_stops_reading_does_not_hold_up_the_others(runner: FakeRunner) -> None:
    engine = engine_on(runner, context_length=5000)
    params = SamplingParams(temperature=0, max_new_tokens=3000)
    unread = engine.submit([1], params, ignore_eos=True)
    assert answer(engine.submit([1], GREEDY))[0] == [2, 3, 4, 5, 6, 7, 8]
    tokens, end = answer(unread)
    assert len(tokens) == 3000
    assert end.reason == "length"
    engine.close()


def test_an_engine_rests_where_one_does_not_read_and_another_waits_for_the_place() -> None:
    steps: list[bool] = []

    class Counted(LocalEngine):
        def step(self) -> bool:
            steps.append(super().step())
            return steps[-1]

    params = SamplingParams(temperature=0, max_new_tokens=Generation.CAPACITY + 9)
    engine = Counted(
        FakeRunner(follows=of_all, rewinds=False),
        name="fake", vocab_size=VOCAB, stop_ids=frozenset(), context_length=4000, max_concurrent=1,
    )  # fmt: skip
    left, waiting = engine.submit([1], params), engine.submit([1], GREEDY)
    while not left.paused:
        time.sleep(0.01)
    before = len(steps)
    time.sleep(0.5)
    assert len(steps) - before <= 15  # a look every 50 ms
    left.cancel()
    assert isinstance(answer(waiting)[1], Finished)
    engine.close()


def test_closing_ends_everybody_and_refuses_newcomers(runner: FakeRunner) -> None:
    engine = engine_on(runner, max_concurrent=1)
    runner.gate.clear()
    generations = [engine.submit([1], GREEDY) for _ in range(3)]
    closer = threading.Thread(target=engine.close)
    closer.start()
    runner.gate.set()
    closer.join()
    assert {answer(g)[1].reason for g in generations} <= {"cancelled", "stop"}
    with pytest.raises(EngineClosed):
        engine.submit([1], GREEDY)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40),
            st.integers(1, 20),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_every_request_gets_exactly_one_end_whatever_the_company(
    requests: list[tuple[list[int], int, bool]],
) -> None:
    engine = engine_on(FakeRunner(), max_waiting=100)
    generations = []
    for prompt, length, cancelled in requests:
        params = SamplingParams(temperature=0, max_new_tokens=length)
        generations.append(engine.submit(prompt, params))
        if cancelled:
            generations[-1].cancel()
    for (prompt, length, cancelled), generation in zip(requests, generations, strict=True):
        tokens, end = answer(generation)
        assert not isinstance(end, Token)
        first = (prompt[-1] + 1) if prompt[-1] != END else 1
        assert tokens == list(range(first, first + len(tokens)))
        assert len(tokens) <= length
        if POISON in prompt and not cancelled:
            assert isinstance(end, Failed)
    assert engine.stats().running == 0
    assert engine.stats().waiting == 0
    engine.close()


def test_a_slot_that_cannot_be_cleared_is_lost_and_nothing_else(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a fault of the GPU."""
    engine = engine_on(runner, max_concurrent=2, kept=0)
    clear = runner.clear
    broken = iter([True])

    def fails_once(slot: int) -> None:
        if next(broken, False):
            raise RuntimeError("illegal memory access")
        clear(slot)

    monkeypatch.setattr(runner, "clear", fails_once)
    _, end = answer(engine.submit([POISON], GREEDY))
    assert isinstance(end, Failed)
    together = [engine.submit([start], GREEDY) for start in (1, 2, 3)]
    assert [answer(each)[0][-1] for each in together] == [8, 8, 8]
    engine.close()


def test_every_request_ends_where_nothing_can_be_cleared(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(slot: int) -> None:
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(runner, "clear", fails)
    engine = engine_on(runner, max_concurrent=1, kept=0)
    broken, waiting = engine.submit([POISON], GREEDY), engine.submit([1], GREEDY)
    assert isinstance(answer(broken)[1], Failed)
    engine.close()
    assert answer(waiting)[1].reason == "cancelled"
