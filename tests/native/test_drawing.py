"""Drawing one of several, held against the same in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from glm_backend.engine import sampler
from glm_backend.engine.request import SamplingParams
from glm_backend.engine.sampler import Sampler
from glm_backend.native.drawing import drawn
from tests.native.test_largest import rows


def ids_of(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(200_000)[:size].astype(np.int32)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 50, 333, 65_024])
def test_the_same_is_drawn_as_by_numpy(size: int) -> None:
    for seed in range(300 if size < 1000 else 20):
        ids, words = ids_of(size, seed), sampler._words(seed, 7)
        values = np.random.default_rng(seed).standard_normal(size, np.float32)
        scores = values + sampler._gumbel(ids, words)
        place = drawn(values, ids, words)
        # (The last bits of a logarithm may differ, and the two best be that near.)
        assert scores[place] >= scores.max() - 1e-5
        assert (scores > scores[place]).sum() <= 1


def test_its_gumbel_numbers_are_right_to_the_last_digits_from_the_least_to_the_greatest() -> None:
    """What is drawn between two says how large their numbers are: the value that tips it."""
    for seed in range(2000):
        ids, words = ids_of(2, seed), sampler._words(seed, 1)
        first, second = sampler._gumbel(ids, words)
        tip, off = first - second, 4e-6 * max(1.0, abs(first), abs(second))
        for beyond, winner in ((-off, 0), (off, 1)):
            values = np.array([0, tip + np.float32(beyond)], np.float32)
            assert drawn(values, ids, words) == winner


def test_numbers_that_lie_apart_are_drawn_from_all_the_same() -> None:
    values, ids = np.zeros(40, np.float32), ids_of(40, 1)
    values[20] = 1e3
    words = sampler._words(1, 1)
    assert drawn(values[::2], ids[::2], words) == 10
    assert drawn(values.astype(np.float64), ids.astype(np.int64), words) == 20  # type: ignore[arg-type]


def test_what_is_impossible_is_not_drawn() -> None:
    values = np.full(100, -np.inf, np.float32)
    values[61] = -1e30
    assert drawn(values, ids_of(100, 1), sampler._words(1, 1)) == 61
    values[61] = -np.inf
    assert drawn(values, ids_of(100, 1), sampler._words(1, 1)) == 0


def test_tokens_are_chosen_as_without_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [
        SamplingParams(seed=3, top_k=50, top_p=0.9),
        SamplingParams(seed=3, top_k=0, top_p=0.95, temperature=1.5),
        SamplingParams(seed=3, top_k=0, top_p=1, min_p=0.05),
        SamplingParams(seed=3, top_k=400, top_p=1, typical_p=0.9),
        SamplingParams(seed=3, top_k=0, top_p=1),
    ]

    def chosen() -> list[int]:
        samplers = [Sampler(params, (), 49_152) for params in kinds]
        values = rows(49_152)[0]
        return [s.choose(values * 3).token_id for s in samplers for _ in range(50)]

    with_them = chosen()
    monkeypatch.setattr("glm_backend.native.largest.is_possible", lambda: False)
    monkeypatch.setattr(sampler, "is_possible", lambda: False)
    assert chosen() == with_them
