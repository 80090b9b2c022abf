"""Candidates: all of the largest, and few others, in any vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from glm_backend.engine.request import SamplingParams
from glm_backend.engine.sampler import Sampler
from glm_backend.native.largest import LANE, Largest

SIZES = [1024, 1500, 49_152, 49_159, 65_024, 151_552]


def rows(size: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(size)
    plain = random.standard_normal(size, np.float32)
    found = [plain, -np.abs(plain), plain * 1e30, np.sort(plain), np.sort(plain)[::-1].copy()]
    found += [np.round(plain * 2) + np.float32(0), np.full(size, -7, np.float32)]
    masked = plain.copy()
    masked[random.random(size) < 0.99] = -np.inf
    return [*found, masked]


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_are_among_the_candidates(size: int) -> None:
    finder = Largest(size)
    for values in rows(size):
        for count in {1, 2, 13, size // LANE // 16 * 16 - 1}:
            assert finder.fits(values, count)
            places = finder.candidates(values, count)
            least = np.partition(values, -count)[-count]
            assert (np.diff(places) > 0).all()
            assert np.isin(np.flatnonzero(values > least), places).all()
            assert (values[places] >= least).sum() >= count


def test_there_are_few_others() -> None:
    values = rows(49_152)[0]
    assert len(Largest(49_152).candidates(values, 50)) < 100


def test_what_it_is_not_for() -> None:
    finder, values = Largest(2048), np.zeros(2048, np.float32)
    assert finder.fits(values, 31)
    assert not finder.fits(values, 32), "there are no more lanes"
    assert not finder.fits(values, 0)
    assert not finder.fits(values[:2000], 3)
    assert not finder.fits(values.astype(np.float64), 3)
    assert not finder.fits(np.zeros((2048, 2), np.float32)[:, 0], 3)
    assert not Largest(100).fits(np.zeros(100, np.float32), 1)


def test_tokens_are_drawn_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [
        SamplingParams(seed=3, top_k=50, top_p=0.9),
        SamplingParams(seed=3, top_k=0, top_p=0.95, temperature=1.5),
        SamplingParams(seed=3, top_k=0, top_p=1, min_p=0.05),
        SamplingParams(seed=3, top_k=400, top_p=1, typical_p=0.9),
    ]

    def drawn() -> list[int]:
        samplers = [Sampler(params, (), 49_152) for params in kinds]
        values = rows(49_152)[0]
        return [s.choose(values * 3).token_id for s in samplers for _ in range(50)]

    with_it = drawn()
    monkeypatch.setattr(Largest, "fits", lambda *_: False)
    assert drawn() == with_it
