"""The authors' own INT8 and INT4: one fp16 scale a row, as chatglm2-6b-int4 is published.

weight = scale[row] * q, with q = round(weight / scale), scale = absmax(row) / 127 or / 7. An INT4
byte holds two columns, the even one in the upper half, both in two's complement. Knows nothing of
models. Their activations are never rounded to 8 bits: the numbers that come out are the authors'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from glm_backend.models.quantization import Int8Weight, Kernel, Native, QuantizedWeight

Bits = Literal[4, 8]


@dataclass(frozen=True, slots=True)
class RowInt4Weight(Native):
    """packed: int8 [rows, columns / 2] of two weights a byte; scale: fp16 [rows]."""

    kind: ClassVar[str] = "row int4"
    packed: Tensor
    scale: Tensor

    @property
    def rows(self) -> int:
        return self.packed.shape[0]

    @property
    def columns(self) -> int:
        return self.packed.shape[1] * 2

    def tensors(self) -> dict[str, Tensor]:
        return {"packed": self.packed, "scale": self.scale}

    def to(self, device: torch.device) -> RowInt4Weight:
        return RowInt4Weight(self.packed.to(device), self.scale.to(device))

    def part(self, rows: slice | Tensor) -> RowInt4Weight:
        return RowInt4Weight(self.packed[rows], self.scale[rows])

    def joined(self, others: Sequence[RowInt4Weight]) -> RowInt4Weight:
        if not others:
            return self
        parts = (self, *others)
        return RowInt4Weight(
            torch.cat([p.packed for p in parts]), torch.cat([p.scale for p in parts])
        )

    def integers(self, rows: slice = slice(None)) -> Tensor:
        """int8 [rows, columns]; the shift there and back brings the odd columns their sign."""
        packed = self.packed[rows]
        return torch.stack([packed >> 4, (packed << 4) >> 4], -1).flatten(1)

    def dense(self, rows: slice = slice(None), dtype: torch.dtype = torch.float32) -> Tensor:
        return (self.integers(rows).float() * self.scale[rows, None].float()).to(dtype)

    def kernel(self, bias: Tensor | None) -> Kernel | None:
        from glm_backend.models.int4_kernels import row_int4_kernel

        return row_int4_kernel(self, bias)

    def library_kernels(self) -> list[type[Kernel]]:
        return []

    @classmethod
    def like(cls, weight: Tensor) -> RowInt4Weight:
        return cls(*quantized_by_rows(weight.half(), 4))


def published_weight(q: Tensor, scale: Tensor, bits: Bits) -> QuantizedWeight:
    """q: int8 [rows, columns], or of two INT4 a byte; scale: fp16 [rows]."""
    return RowInt4Weight(q, scale) if bits == 4 else Int8Weight(q, scale.float(), exact=True)


def quantized_by_rows(weight: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """The authors' q and scale, with their rounding: all of it in the precision of `weight`.

    weight: [rows, columns]; give it in fp16 to get the published numbers. A row of zeros gets the
    scale 0 and the values 0 (theirs were undefined).
    """
    scale = weight.abs().amax(1) / (2 ** (bits - 1) - 1)
    q = torch.round(weight / scale[:, None]).nan_to_num(0.0).to(torch.int8)
    if bits == 4:
        q = (q[:, ::2] << 4) | (q[:, 1::2] & 15)
    return q.contiguous(), scale
