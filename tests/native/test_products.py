"""Products in whole numbers: exact where nothing has to be rounded, and row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import QuantizedWeight, quantized_int4, quantized_int8
from glm_backend.models.row_quantization import RowInt4Weight

FORMS: dict[str, Callable[[Tensor], QuantizedWeight]] = {
    "int8": quantized_int8,
    "exact int8": lambda w: replace(quantized_int8(w), exact=True),
    "small int4": lambda w: quantized_int4(w, group=32),
    "large int4": lambda w: quantized_int4(w, group=128),
    "row int4": RowInt4Weight.like,
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def levels(rows: int, columns: int) -> Tensor:
    """Whole numbers from -127 to 127, with a 127 in each group: they need no rounding."""
    x = torch.randint(-127, 128, (rows, columns), generator=torch.Generator().manual_seed(1))
    x[:, ::32] = 127
    return x.float()


@every_form
@pytest.mark.parametrize("shape", [(64, 128), (200, 384), (7, 2048), (130, 640)])
def test_whole_numbers_are_multiplied_exactly(form: Any, shape: tuple[int, int]) -> None:
    weight = form(random(*shape))
    x = levels(9, shape[1])
    expected = x.double() @ weight.dense(slice(None)).double().T
    got = NativeKernel(weight, None).multiply(x).double()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@every_form
def test_a_row_is_the_same_alone_and_in_any_company(form: Any) -> None:
    kernel = NativeKernel(form(random(200, 384)), random(200))
    x = random(23, 384)
    alone = torch.cat([kernel(row[None]) for row in x])
    for rows in range(1, 24):
        assert torch.equal(kernel(x[:rows]), alone[:rows])
        assert torch.equal(kernel(x[-rows:]), alone[-rows:])


@every_form
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_stays_so_in_its_own_row(form: Any, value: float) -> None:
    kernel = NativeKernel(form(random(70, 256)), None)
    x = random(5, 256)
    good = kernel(x)
    x[2, 201] = value
    got = kernel(x)
    assert not got[2].isfinite().any()
    others = [0, 1, 3, 4]
    assert torch.equal(got[others], good[others])


@every_form
def test_zeros_give_the_bias(form: Any) -> None:
    bias = random(70)
    got = NativeKernel(form(random(70, 256)), bias)(torch.zeros(3, 256))
    assert torch.equal(got, bias.expand(3, -1))


@every_form
@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e30])
def test_activations_of_any_size(form: Any, size: float) -> None:
    weight = form(random(64, 256))
    x = random(2, 256)
    expected = x @ weight.dense(slice(None)).T
    got = NativeKernel(weight, None)(x * size)
    if size < 1e-12:  # counts as nothing
        assert got.abs().max() < 1e-10
    else:
        assert (got / size - expected).norm() < 0.02 * expected.norm()


def test_no_rows_are_no_rows() -> None:
    assert NativeKernel(quantized_int8(random(64, 64)), None)(random(0, 64)).shape == (0, 64)


def test_threads_change_nothing() -> None:
    kernel = NativeKernel(quantized_int4(random(640, 256)), None)
    x = random(3, 256)
    expected, before = kernel(x), torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            assert torch.equal(kernel(x), expected)
    finally:
        torch.set_num_threads(before)
