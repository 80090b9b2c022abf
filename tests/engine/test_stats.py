"""What an engine counts while it works."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_backend.engine.request import SamplingParams
from glm_backend.engine.stats import Timings
from glm_backend.errors import EngineBusy
from tests.engine.fake_runner import POISON, FakeRunner
from tests.engine.test_local_engine import GREEDY, answer, engine_on

_SECONDS = st.floats(0, 100, allow_nan=False)


@given(st.lists(_SECONDS, min_size=1, max_size=5, unique=True), st.lists(_SECONDS))
def test_a_histogram_counts_what_lies_up_to_each_bound(
    bounds: list[float], took: list[float]
) -> None:
    timings = Timings(tuple(sorted(bounds)))
    for seconds in took:
        timings.add(seconds)
    found = timings.histogram()
    for place, bound in enumerate(found.bounds_s, 1):
        assert sum(found.counts[:place]) == sum(seconds <= bound for seconds in took)
    assert sum(found.counts) == len(took)
    assert found.sum_s == pytest.approx(sum(took))


def test_every_request_is_counted_by_its_end() -> None:
    runner = FakeRunner()
    engine = engine_on(runner, max_concurrent=1, max_waiting=1)
    answer(engine.submit([1, 2], GREEDY))
    answer(engine.submit([1], SamplingParams(temperature=0, max_new_tokens=2)))
    answer(engine.submit([POISON], GREEDY))
    runner.gate.clear()
    cancelled = engine.submit([3], GREEDY)
    cancelled.cancel()
    taken = []
    with pytest.raises(EngineBusy, match="would be number 2") as refusal:
        for _ in range(3):
            taken.append(engine.submit([4], GREEDY))
    assert refusal.value.details == {"waiting": 1, "place": 2}
    runner.gate.set()
    for generation in (cancelled, *taken):
        answer(generation)
    engine.close()
    stats = engine.stats()
    assert stats.ends == {
        "stop": 1 + len(taken),
        "length": 1,
        "cancelled": 1,
        "failed": 1,
        "refused": 1,
    }
    assert sum(stats.first_token.counts) >= 2 + len(taken)
    assert sum(stats.steps.counts) == len(runner.batches)


def test_conversations_that_are_kept_are_counted() -> None:
    engine = engine_on(FakeRunner())
    for start in (1, 2, 3):
        answer(engine.submit([start] * 12, GREEDY))
    stats = engine.stats()
    assert (stats.kept, stats.running) == (3, 0)
    assert 0 < stats.kv_tokens <= stats.kv_limit
    engine.close()
