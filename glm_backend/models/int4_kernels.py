"""What multiplies by INT4 weights fastest: our own kernels, torch's product, or CUDA's."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_backend.models.kernel_choice import CHOICE
from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import LARGE_GROUP, SMALL_GROUP, Int4Weight, Kernel
from glm_backend.models.row_quantization import RowInt4Weight

_ROWS_AT_ONCE = 1024


def int4_kernel(weight: Int4Weight, bias: Tensor | None) -> Kernel | None:
    """For groups of columns. None where no kernel is there, or it does not add up as it should."""
    if weight.packed.device.type == "cuda":
        return CudaInt4(weight, bias) if _suits_cuda(weight.packed) else None
    if weight.packed.device.type != "cpu":
        return None
    ours: list[type[Kernel]] = [NativeKernel] if NativeKernel.suits(weight) else []
    return CHOICE.made([*ours, *library_kernels(weight)], weight, bias)


def library_kernels(weight: Int4Weight) -> list[type[Kernel]]:
    """On CPUs, for groups of columns, if it adds up as it should."""
    return [TorchInt4] if weight.rows % 16 == 0 and _is_exact(TorchInt4) else []


def row_int4_kernel(weight: RowInt4Weight, bias: Tensor | None) -> Kernel | None:
    """For a scale a row, with activations in full precision."""
    if weight.packed.device.type == "cuda":
        return CudaRowInt4(weight, bias) if _suits_cuda(weight.packed) else None
    return NativeKernel(weight, bias) if NativeKernel.suits(weight) else None


class TorchInt4(Kernel):
    """torch's int4 product for CPUs. It computes in bfloat16."""

    scale_zero: Tensor

    def __init__(self, weight: Int4Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._padding = weight.packed.shape[1] * 2 - weight.columns
        self._group = weight.group
        self._packed = _packed_for_torch(weight)
        self.register_buffer("scale_zero", _scale_zero(weight))

    def product(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        if self._padding:
            rows = F.pad(rows, (0, self._padding))
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self._packed, self._group, self.scale_zero
        )
        return y


def _scale_zero(weight: Int4Weight) -> Tensor:
    """bfloat16 [groups, rows, 2], as torch's kernels read it: (q - 8) * scale + zero."""
    both = torch.stack([weight.scale.float(), weight.middle], -1).bfloat16()
    return both.transpose(0, 1).contiguous()


def _packed_for_torch(weight: Int4Weight) -> Tensor:
    """The kernel's own layout, made in portions: on the way a weight takes four bytes."""
    pack = torch.ops.aten._convert_weight_to_int4pack_for_cpu
    portions = [slice(i, i + _ROWS_AT_ONCE) for i in range(0, weight.rows, _ROWS_AT_ONCE)]
    return torch.cat([pack(weight.levels(rows).to(torch.int32), 1) for rows in portions])


class CudaInt4(Kernel):
    """torch's int4 product for CUDA ("tinygemm"); it computes in bfloat16."""

    scale_zero: Tensor

    def __init__(self, weight: Int4Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._padding = weight.packed.shape[1] * 2 - weight.columns
        self._group = weight.group
        swapped = (weight.packed << 4) | (weight.packed >> 4)  # it reads the even column above
        self._packed = torch._convert_weight_to_int4pack(swapped, _inner_tiles(weight.packed))
        self.register_buffer("scale_zero", _scale_zero(weight))

    def product(self, x: Tensor) -> Tensor:
        rows = x.bfloat16()
        if self._padding:
            rows = F.pad(rows, (0, self._padding))
        return torch._weight_int4pack_mm(rows, self._packed, self._group, self.scale_zero)


class CudaRowInt4(CudaInt4):
    """The same for a scale a row, which multiplies what comes out: it is not rounded."""

    row_scale: Tensor

    def __init__(self, weight: RowInt4Weight, bias: Tensor | None) -> None:
        super().__init__(_in_groups(weight), bias)
        self.register_buffer("row_scale", weight.scale.float())

    def product(self, x: Tensor) -> Tensor:
        return super().product(x) * self.row_scale


def _in_groups(weight: RowInt4Weight) -> Int4Weight:
    """The whole numbers of it from -8 to 7, as groups of columns."""
    levels = weight.packed.view(torch.uint8) ^ 0x88  # two's complement to 0 to 15
    packed = (levels << 4) | (levels >> 4)
    group = SMALL_GROUP if weight.columns % LARGE_GROUP else LARGE_GROUP
    size = (weight.rows, weight.columns // group)
    ones = torch.ones(size, dtype=torch.float16, device=packed.device)
    return Int4Weight(packed, ones, torch.full_like(ones, 8, dtype=torch.uint8), weight.columns)


def _inner_tiles(packed: Tensor) -> int:
    """How many tiles of 16 columns CUDA's kernel reads at a time; 0 where none fit.

    8, 4 or 2, and the columns must be a multiple (aten/src/ATen/native/cuda/int4mm.cu).
    """
    return next((tiles for tiles in (8, 4, 2) if packed.shape[1] % (tiles * 8) == 0), 0)


def _suits_cuda(packed: Tensor) -> bool:
    tiles = _inner_tiles(packed)
    return packed.shape[0] % 8 == 0 and tiles > 0 and _is_exact(CudaInt4, "cuda", 1024 + 16 * tiles)


@functools.cache
def _is_exact(
    kind: Callable[[Int4Weight, None], Kernel], device: str = "cpu", columns: int = 1024
) -> bool:
    """Whether the kernel is there and agrees with the plain formula, on a weight of 64 rows."""
    q = torch.arange(16, dtype=torch.uint8).repeat(64, columns // 16)
    scale = torch.ones(64, columns // SMALL_GROUP, dtype=torch.float16)
    zero = torch.full_like(scale, 3, dtype=torch.uint8)
    weight = Int4Weight(q[:, ::2] | (q[:, 1::2] << 4), scale, zero, columns)
    expected = (q.float() - 3).sum(1)
    try:
        y = kind(weight.to(torch.device(device)), None)(torch.ones(2, columns, device=device))
        return torch.allclose(y[0].float().cpu(), expected, rtol=1e-2)
    except (AttributeError, RuntimeError, NotImplementedError):  # another build of torch
        return False
