"""Linear layers that our own kernels multiply by (glm_backend/native), on CPUs that have them."""

from __future__ import annotations

import functools
import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_backend.models.kernel_choice import CHOICE
from glm_backend.models.quantization import Int4Weight, Int8Weight, Kernel, QuantizedWeight
from glm_backend.models.row_quantization import RowInt4Weight
from glm_backend.native import products, rounding
from glm_backend.native.compiled import Program, Step, is_possible
from glm_backend.native.products import (
    INT8,
    LARGE_INT4,
    LARGE_INT8,
    ROW_INT4,
    SMALL_INT4,
    Form,
    Laid,
)

logger = logging.getLogger(__name__)

#: Places in the step.
_X, _Q, _SCALES, _SUMS, _Y = range(1, 6)


#: Columns from which on a layer is worth a call of its own. In smaller ones what counts is whether
#: TorchScript can play the kernel of a recorded pass (engine/recorded_pass.py), which this is not.
_LARGE_COLUMNS = 2048
#: How many times as fast a library's kernel must be for a whole pass to be left to it: what is
#: measured is off by a tenth, and between the products our pass takes less.
_LEAD = 1.25


class NativeKernel(Kernel):
    """A row's result is the same to the last bit alone and in any company."""

    @staticmethod
    def suits(weight: QuantizedWeight) -> bool:
        """Whether it is there for a layer, and may be the fastest."""
        return weight.columns >= _LARGE_COLUMNS and weight.has_native

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        laid = self._laid = laid_out(weight)
        self._no_bias = torch.zeros(laid.rows)
        held = (laid.flat, laid.scale, self._no_bias)
        rounded = (_X, _Q, _SCALES, _SUMS, laid.columns)
        multiplied = (_Q, _SCALES, _SUMS, _Y, *(part.data_ptr() for part in held), *laid.sizes())
        self._program = Program(
            [
                (rounding.rounded(laid.form.group, laid.parts), rounded),
                (products.product(laid.form, laid.parts), multiplied),
            ]
        )

    def product(self, x: Tensor) -> Tensor:
        laid = self._laid
        x = x.float()
        if laid.columns != x.shape[1]:
            x = F.pad(x, (0, laid.columns - x.shape[1]))
        y = torch.empty(len(x), laid.rows)
        rounded = rounding.buffers_for(len(x), *laid.rounded_sizes())
        self._program.run(Step(len(x), [x.contiguous(), *rounded, y]))
        return y[:, : self.out_features]


def laid_out(weight: QuantizedWeight) -> Laid:
    """A weight as our kernels read it; of one that `has_native`."""
    if isinstance(weight, Int4Weight):
        form = LARGE_INT4 if weight.zero.dtype is torch.uint8 else SMALL_INT4
        columns = weight.packed.shape[1] * 2
        shape = (weight.rows, columns)
        flat = products.laid_out(weight.levels, shape, form, weight.scale, weight.zero)
        return Laid(form, 1, products.padded_rows(weight.rows), columns, flat, torch.empty(0))
    assert isinstance(weight, Int8Weight | RowInt4Weight)
    form = _row_form(weight)
    parts = 2 if form is ROW_INT4 or getattr(weight, "exact", False) else 1
    columns, zero = products.padded_columns(weight.columns, form), form.zero or 0

    def levels(rows: slice) -> Tensor:
        q = weight.q[rows] if isinstance(weight, Int8Weight) else weight.integers(rows)
        above = q.view(torch.uint8) + zero  # which goes round, as whole numbers of 8 bits do
        return F.pad(above, (0, columns - weight.columns), value=zero)

    scale = torch.zeros(products.padded_rows(weight.rows))
    scale[: weight.rows] = weight.scale.float()
    flat = products.laid_out(levels, (weight.rows, columns), form)
    return Laid(form, parts, len(scale), columns, flat, scale)


def _row_form(weight: Int8Weight | RowInt4Weight) -> Form:
    if isinstance(weight, RowInt4Weight):
        return ROW_INT4
    large = weight.columns >= _LARGE_COLUMNS and weight.columns % LARGE_INT8.columns == 0
    return LARGE_INT8 if large and not weight.uneven else INT8


def has_native(weight: QuantizedWeight) -> bool:
    """Whether our kernels are there for such a weight, and give the right numbers."""
    if any(tensor.device.type != "cpu" for tensor in weight.tensors().values()):
        return False
    if isinstance(weight, Int4Weight) and weight.group not in (SMALL_INT4.span, LARGE_INT4.span):
        return False
    return is_possible() and _is_exact(type(weight))


def native_leads(weight: QuantizedWeight) -> bool:
    """Whether a whole pass of our own kernels is the fastest for a model of such weights.

    Small layers are not measured: what they take is mostly calls, and of these it has none.
    """
    others = weight.library_kernels()
    if weight.columns < _LARGE_COLUMNS or not others:
        return True
    return CHOICE.fastest([NativeKernel, *others], weight, _LEAD) is NativeKernel


@functools.cache
def _is_exact(kind: type[QuantizedWeight]) -> bool:
    """Whether they agree with the plain formula, on weights of 70 x 192."""
    x = torch.rand(7, 192, generator=torch.Generator().manual_seed(0)) - 0.5
    weight = kind.like(x.repeat(10, 1))
    try:
        y = NativeKernel(weight, None)(x)
    except (ImportError, OSError, RuntimeError) as error:
        logger.info("our own kernels cannot be used: %s", error)
        return False
    return torch.allclose(y, x @ weight.dense(slice(None)).T, atol=0.05)
