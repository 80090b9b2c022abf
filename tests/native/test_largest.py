"""The largest of any vocabulary, in order."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from glm_backend.native.largest import LANE, Largest

SIZES = [2048, 2500, 49_152, 49_159, 65_024, 151_552]


def rows(size: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(size)
    plain = random.standard_normal(size, np.float32)
    found = [plain, -np.abs(plain), plain * 1e30, np.sort(plain), np.sort(plain)[::-1].copy()]
    masked = plain.copy()
    masked[random.random(size) < 0.9] = -np.inf
    return [*found, np.round(plain * 100), masked]


@pytest.mark.parametrize("size", SIZES)
def test_they_are_found_the_largest_first_and_of_equal_ones_the_first(size: int) -> None:
    finder = Largest(size)
    for values in rows(size):
        expected = np.argsort(-values, kind="stable")
        for count in {1, 2, 13, min(256, size // LANE // 16 * 16 - 1)}:
            places = finder.places(values, count)
            assert places is not None
            assert places.tolist() == expected[:count].tolist()


@pytest.mark.parametrize("size", [2048, 49_159])
def test_a_shorter_row_is_fine(size: int) -> None:
    finder, values = Largest(200_000), rows(size)[0]
    places = finder.places(values, 5)
    assert places is not None
    assert places.tolist() == np.argsort(-values)[:5].tolist()


def test_many_equal_ones_are_not_for_it() -> None:
    finder, values = Largest(49_152), np.zeros(49_152, np.float32)
    assert finder.places(values, 3) is None
    values[:100] = 1
    assert finder.places(values, 3) is not None


def test_nor_are_more_than_there_are_lanes() -> None:
    finder, values = Largest(2048), np.arange(2048, dtype=np.float32)
    places = finder.places(values, 31)
    assert places is not None
    assert places.tolist() == list(range(2047, 2016, -1))
    assert finder.places(values, 32) is None
    assert finder.places(values, 0) is None
    assert finder.places(values[:1000], 1) is None


def test_nor_is_what_it_would_read_wrongly() -> None:
    finder, values = Largest(4096), np.arange(8192, dtype=np.float32)
    assert finder.places(values, 3) is None, "there is no room for so many"
    assert finder.places(values[::2], 3) is None
    assert finder.places(values[:4096].astype(np.float64), 3) is None  # type: ignore[arg-type]
