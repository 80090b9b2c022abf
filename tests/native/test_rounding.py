"""Activations in 8 bits, after a norm or a gate or as they are."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_backend.native import rounding
from glm_backend.native.code import FLOATS, VECTOR, Operation
from glm_backend.native.compiled import Program, Step, compiled
from glm_backend.native.functions import exponential

ROWS, COLUMNS = 5, 192
SHAPES = [(32, 1), (32, 2), (64, 1), (64, 2)]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def undone(function: int, x: Tensor, shape: tuple[int, int], *more: int) -> tuple[Tensor, Tensor]:
    """What an operation rounded, as numbers again, and half a step of each."""
    group, parts = shape
    buffers = rounding.buffers_for(len(x), COLUMNS * parts, COLUMNS // group * parts)
    Program([(function, (1, 2, 3, 4, COLUMNS, *more))]).run(Step(len(x), [x, *buffers]))
    q, scales, sums = (buffer.view(len(x), parts, COLUMNS // group, -1) for buffer in buffers)
    assert torch.equal(q.sum(-1, keepdim=True, dtype=torch.int32), sums)
    numbers = (q * scales).sum(1).flatten(1)
    return numbers, (scales[:, -1] / 2).expand(-1, -1, group).flatten(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_is_to_the_nearest(shape: tuple[int, int]) -> None:
    x = random(ROWS, COLUMNS)
    numbers, half = undone(rounding.rounded(*shape), x, shape)
    assert ((numbers - x).abs() <= half * 1.001 + 1e-7).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_rounding_after_a_norm(shape: tuple[int, int], rows: int) -> None:
    x, weight, eps = random(rows, COLUMNS) * 3, random(COLUMNS), torch.tensor([1e-5])
    held = (weight.data_ptr(), eps.data_ptr())
    numbers, half = undone(rounding.rounded_normed(*shape), x, shape, *held)
    expected = F.rms_norm(x, (COLUMNS,), weight, 1e-5)
    assert ((numbers - expected).abs() <= half * 1.001 + 1e-6).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_rounding_after_a_gate(shape: tuple[int, int]) -> None:
    x = random(ROWS, 2 * COLUMNS) * 4
    numbers, half = undone(rounding.rounded_gated(*shape), x, shape)
    gate, up = x.chunk(2, -1)
    assert ((numbers - F.silu(gate) * up).abs() <= half * 1.001 + 1e-5).all()


def write_exponential(module: Any) -> None:
    code = Operation(module, "exponential")
    x, y = code.buffer(), code.buffer()
    with code.my_share(code.rows) as row:
        place = code.product(row, VECTOR)
        code.store(exponential(code, code.load(FLOATS, x, place)), y, place)
    code.done()


@functools.cache
def exponential_of() -> Program:
    return Program([(compiled(write_exponential, "exponential"), (1, 2))])


def test_the_exponential_is_right_to_some_units_in_the_last_place() -> None:
    x = torch.linspace(-87, 88, 160_000)
    y = torch.empty_like(x)
    exponential_of().run(Step(10_000, [x, y]))
    expected = x.double().exp()
    assert ((y.double() - expected) / expected).abs().max() < 2e-7 * 2


def test_the_exponential_of_what_is_no_number_and_beyond_all_limits() -> None:
    x = torch.zeros(16)
    x[:5] = torch.tensor([torch.nan, torch.inf, -torch.inf, 200, -200])
    y = torch.empty_like(x)
    exponential_of().run(Step(1, [x, y]))
    assert y[0].isnan()
    assert (y[[1, 3]] > 1e38).all()
    assert (y[[2, 4]] < 1e-37).all()
    assert (y[5:] == 1).all()
