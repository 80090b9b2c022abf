"""The authors' own INT8 and INT4: one fp16 scale a row, as chatglm2-6b-int4 is published.

weight = scale[row] * q, with q = round(weight / scale), scale = absmax(row) / 127 or / 7. An INT4
byte holds two columns, the even one in the upper half, both in two's complement. Knows nothing of
models: integers and scales go in, a module that acts like nn.Linear comes out.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_backend.models.quantization import (
    SMALLEST_SCALE,
    OneDnnInt8Linear,
    finished,
    frozen,
    int4_kernel_is_exact,
    int8_kernel_is_exact,
)

Bits = Literal[4, 8]
#: Rows widened at a time where no kernel fits: their copies stay in the cache.
_ROWS_AT_ONCE = 256
_INTEGER_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class RowQuantized:
    """q: int8 [rows, columns], or [rows, columns / 2] of two INT4 a byte; scale: fp16 [rows]."""

    q: Tensor
    scale: Tensor
    bits: Bits

    def __getitem__(self, part: slice) -> RowQuantized:
        """Some of the rows; they are independent of each other."""
        return RowQuantized(self.q[part], self.scale[part], self.bits)

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights as numbers: [rows, columns]."""
        return self.integers().to(dtype) * self.scale.to(dtype)[:, None]

    def integers(self) -> Tensor:
        """int8 [rows, columns], for either width."""
        if self.bits == 8:
            return self.q
        return torch.stack([upper(self.q), lower(self.q)], -1).flatten(1)


def upper(packed: Tensor) -> Tensor:
    """The even columns of packed INT4."""
    return packed >> 4


def lower(packed: Tensor) -> Tensor:
    """The odd columns; the shift there and back brings their sign."""
    return (packed << 4) >> 4


def quantized_by_rows(weight: Tensor, bits: Bits) -> RowQuantized:
    """The authors' quantisation, with their rounding: all of it in the precision of `weight`.

    weight: [rows, columns]; give it in fp16 to get the published numbers. A row of zeros gets the
    scale 0 and the values 0 (theirs were undefined).
    """
    scale = weight.abs().amax(1) / (2 ** (bits - 1) - 1)
    q = torch.round(weight / scale[:, None]).nan_to_num(0.0).to(torch.int8)
    if bits == 4:
        q = (q[:, ::2] << 4) | (q[:, 1::2] & 15)
    return RowQuantized(q.contiguous(), scale, bits)


def row_quantized_linear(
    weight: RowQuantized, bias: Tensor | None, *, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """A layer that computes with these very integers.

    In float32 its results are those of the dequantised weights (on CPUs to 5 digits: activations
    become integers of 16 bits), in half precision on CPUs INT4 runs on torch's kernel, which
    rounds to bfloat16.
    """
    if weight.bits == 8:
        if device.type == "cpu" and int8_kernel_is_exact():
            return TwoPartInt8Linear(weight, bias)
        return RowInt8Linear(weight, bias, device)
    rows, columns = weight.q.shape[0], weight.q.shape[1] * 2
    fits = device.type == "cpu" and rows % 16 == columns % 32 == 0
    if fits and dtype is not torch.float32 and int4_kernel_is_exact():
        return KernelInt4Linear(weight, bias)
    if device.type == "cpu" and int_product_is_exact():
        return TwoPartInt4Linear(weight, bias, device)
    return RowInt4Linear(weight, bias, device)


class TwoPartInt8Linear(OneDnnInt8Linear):
    """oneDNN's INT8 product with activations in two parts of 8 bits each.

    One part alone is wrong by about 1 % of an output, which is the error of our own INT8; both
    together by 0.005 %, for the same reading of the weights.
    """

    def __init__(self, weight: RowQuantized, bias: Tensor | None) -> None:
        super().__init__(weight.q, weight.scale.float(), bias)

    def forward(self, x: Tensor) -> Tensor:
        levels, absmax = in_two_parts(x.reshape(-1, self.in_features).float())
        return finished(joined(self.product(levels)).mul_(absmax), x, self.bias)


def in_two_parts(rows: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, in] -> whole numbers from -127 to 127 [2 * rows, in], and the scales [rows, 1].

    Below the coarse values stand the fine ones: what rounding took, at most 1/2, in 1/254.
    """
    absmax = rows.abs().amax(1, keepdim=True).clamp(min=SMALLEST_SCALE)
    levels = rows / absmax * 127
    coarse = torch.round(levels)
    return torch.cat([coarse, torch.round((levels - coarse) * 254)]), absmax


def joined(y: Tensor) -> Tensor:
    """The product of both parts, [2 * rows, out], as one: [rows, out]."""
    coarse, fine = y.chunk(2)
    return coarse + fine / 254


class RowInt8Linear(nn.Module):
    """Widens the weights at each call: correct on every device."""

    q: Tensor
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: RowQuantized, bias: Tensor | None, device: torch.device) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.q.shape
        self.register_buffer("q", weight.q.to(device))
        self.register_buffer("scale", weight.scale.to(device, torch.float32))
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.q.to(x.dtype)).float() * self.scale
        return finished(y, x, self.bias)


class RowInt4Linear(nn.Module):
    """Two columns a byte in memory; rows are widened to x's precision block by block.

    Even and odd columns meet their own halves of x, so nothing is woven together.
    """

    packed: Tensor
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: RowQuantized, bias: Tensor | None, device: torch.device) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.q.shape[0], weight.q.shape[1] * 2
        self.register_buffer("packed", weight.q.to(device))
        self.register_buffer("scale", weight.scale.to(device, torch.float32))
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        even, odd = (part.contiguous() for part in (x[..., ::2], x[..., 1::2]))
        blocks = [
            F.linear(even, upper(block).to(x.dtype)) + F.linear(odd, lower(block).to(x.dtype))
            for block in torch.split(self.packed, _ROWS_AT_ONCE)
        ]
        return finished(torch.cat(blocks, -1).float() * self.scale, x, self.bias)


class TwoPartInt4Linear(RowInt4Linear):
    """The same in integers: three times as fast as in float32 for a few rows (measured).

    Integers add up the same in any company, so a row's result is bit-equal alone and in a batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        levels, absmax = in_two_parts(x.reshape(-1, self.in_features).float())
        whole = levels.to(torch.int8)
        even, odd = whole[:, ::2].contiguous(), whole[:, 1::2].contiguous()
        blocks = [
            torch._int_mm(even, upper(block).T) + torch._int_mm(odd, lower(block).T)
            for block in torch.split(self.packed, _INTEGER_ROWS_AT_ONCE)
        ]
        y = joined(torch.cat(blocks, 1).float() * (self.scale / 127))
        return finished(y.mul_(absmax), x, self.bias)


@functools.cache
def int_product_is_exact() -> bool:
    """Whether torch's product of INT8 matrices is there for CPUs and adds up as it should."""
    try:
        product = torch._int_mm(torch.full((2, 256), 127, dtype=torch.int8), _sevens().T)
        return bool((product == 127 * -7 * 256).all())
    except (AttributeError, RuntimeError):  # another build of torch
        return False


def _sevens() -> Tensor:
    return torch.full((16, 256), -7, dtype=torch.int8)


class KernelInt4Linear(nn.Module):
    """torch's int4 product for CPUs, in bfloat16; the scales come after it, unrounded."""

    packed: Tensor
    ones: Tensor
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, weight: RowQuantized, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.q.shape[0], weight.q.shape[1] * 2
        levels = weight.integers().to(torch.int32) + 8
        self.register_buffer(
            "packed", torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
        )
        self.group = max(size for size in (32, 64, 128, 256) if self.in_features % size == 0)
        # [groups, out, 2]: the kernel asks for a scale and a zero point a group
        ones = torch.tensor([1.0, 0.0], dtype=torch.bfloat16)
        shape = (self.in_features // self.group, self.out_features, 2)
        self.register_buffer("ones", ones.expand(shape).contiguous())
        self.register_buffer("scale", weight.scale.float())
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).bfloat16()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, self.group, self.ones)
        return finished(y.float() * self.scale, x, self.bias)
