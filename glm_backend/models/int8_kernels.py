"""What multiplies by INT8 weights fastest: integer products of fbgemm or oneDNN, or CUDA's own.

On CPUs each row of activations is divided by its own largest value and becomes whole numbers;
integers then add up the same whatever rows stand beside it, so a row's result is bit-equal alone
and in company. On GPUs activations are not rounded.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from glm_backend.models.kernel_choice import CHOICE
from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import SMALLEST_SCALE, Int8Weight, Kernel, WidenedLinear

#: From more rows on, which only prompts have, torch's kernel for CUDA is not asked.
_FEW_ROWS = 32


def int8_kernel(weight: Int8Weight, bias: Tensor | None) -> Kernel | None:
    """None where no kernel is there, or it does not add up as it should."""
    if weight.q.device.type == "cuda":
        exact = _is_exact(CudaInt8, "cuda", torch.bfloat16)
        return CHOICE.made([CudaInt8, WidenedLinear], weight, bias) if exact else None
    if weight.q.device.type != "cpu":
        return None
    ours: list[type[Kernel]] = [NativeKernel] if NativeKernel.suits(weight) else []
    return CHOICE.made([*ours, *library_kernels(weight)], weight, bias)


def library_kernels(weight: Int8Weight) -> list[type[Kernel]]:
    """On CPUs, without those that do not add up as they should."""
    two = weight.exact or weight.uneven  # parts, as these have one scale for a row of activations
    possible = (TwoPartFbgemm, TwoPartOneDnn) if two else (FbgemmInt8, OneDnnInt8)
    return [kind for kind in possible if _is_exact(kind)]


class FbgemmInt8(Kernel):
    """fbgemm's product, which rounds the activations itself: one operation for small layers."""

    def __init__(self, weight: Int8Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        zeros = torch.zeros(weight.rows, dtype=torch.long)
        with warnings.catch_warnings():  # that torch will lose this one day; it is pinned
            warnings.simplefilter("ignore")
            held = torch._make_per_channel_quantized_tensor(
                weight.q, weight.scale.double(), zeros, 0
            )
            self._packed = torch.ops.quantized.linear_prepack(held, None)

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        absmax = _absmax(wide)
        return self._rounded(wide / absmax).mul_(absmax)

    def _rounded(self, x: Tensor) -> Tensor:
        """x: float32 [rows, in] from -1 to 1, rounded to multiples of 1 / 127."""
        y: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x, 1 / 127, 128, self._packed
        )
        return y


class TwoPartFbgemm(FbgemmInt8):
    """The same with activations in two parts of 8 bits, for `exact` and `uneven` weights.

    One part alone is wrong by about 1 % of an output, both together by 0.005 %. The weights are
    read once for both.
    """

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        absmax = _absmax(wide)
        shares = wide / absmax
        levels = shares * 127
        rest = levels.sub_(levels.round()).mul_(2)  # what rounding takes, twice a half at most
        high, low = self._rounded(torch.cat([shares, rest])).chunk(2)
        return torch.add(high, low, alpha=1 / 254).mul_(absmax)


class OneDnnInt8(Kernel):
    """oneDNN's u8 x s8 product, which takes one scale for the whole call: many rows are its own."""

    scale: Tensor
    zeros: Tensor
    offset: Tensor

    def __init__(self, weight: Int8Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._packed = torch.ops.onednn.qlinear_prepack(weight.q, None)
        self.register_buffer("scale", weight.scale / 127)
        self.register_buffer("zeros", torch.zeros(weight.rows, dtype=torch.int64))
        self.register_buffer("offset", torch.tensor([128.5]))

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        absmax = _absmax(wide)
        # Rounded to the nearest, and 128 for zero: what is behind the point is cut off.
        levels = torch.addcmul(self.offset, wide, absmax.reciprocal(), value=127)
        return self._integers(levels.to(torch.uint8)).mul_(absmax)

    def _integers(self, levels: Tensor) -> Tensor:
        """levels: uint8 [rows, in], 128 is zero -> float32 [rows, out]."""
        y: Tensor = _onednn_product()(levels, self._packed, self.scale, self.zeros)
        return y


class TwoPartOneDnn(OneDnnInt8):
    """The same in two parts."""

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        absmax = _absmax(wide)
        levels = wide * absmax.reciprocal().mul_(127)
        coarse = torch.round(levels)
        fine = torch.round((levels - coarse) * 254)  # what rounding took, at most 1/2, in 1/254
        both = torch.cat([coarse, fine]).add_(128).to(torch.uint8)
        high, low = self._integers(both).chunk(2)
        return torch.add(high, low, alpha=1 / 254).mul_(absmax)


class CudaInt8(WidenedLinear):
    """torch's int8 product for CUDA, for few rows; for many the weights are widened.

    It has a thread for each number of the result, which walks along a row by itself
    (aten/src/ATen/native/cuda/int8mm.cu of torch 2.13): next to tensor cores that is slow for a
    prompt, whatever the GPU.
    """

    def __init__(self, weight: Int8Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._q, self._scale = weight.q, weight.scale

    def product(self, x: Tensor) -> Tensor:
        if x.shape[0] > _FEW_ROWS:
            return super().product(x)
        return torch._weight_int8pack_mm(x, self._q, self._scale)


@functools.cache
def _onednn_product() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """oneDNN's product. As a function of TorchScript: its empty list cannot be recorded."""
    unit = torch.jit.CompilationUnit("""
        def product(levels: Tensor, weight: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
            none: List[Optional[number]] = []
            return torch.ops.onednn.qlinear_pointwise(
                levels, 1.0, 128, weight, scale, zeros,
                None, 1.0, 0, torch.float32, "none", none, "none",
            )
    """)
    product: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = unit.product
    return product


def _absmax(x: Tensor) -> Tensor:
    """The largest absolute value of each row: [rows, 1]; without a copy of all of them."""
    return torch.maximum(x.amax(1, True), x.amin(1, True).neg_()).clamp_(min=SMALLEST_SCALE)


@functools.cache
def _is_exact(
    kind: Callable[[Int8Weight, None], Kernel],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> bool:
    """Whether the kernel is there and does not saturate (CPUs without VNNI may)."""
    try:
        q = torch.full((64, 256), 127, dtype=torch.int8, device=device)
        kernel = kind(Int8Weight(q, torch.ones(64, device=device)), None)
        y = kernel(torch.ones(2, 256, dtype=dtype, device=device))
        return torch.allclose(y.float().cpu(), torch.full((2, 64), 127.0 * 256), rtol=1e-2)
    except (AttributeError, RuntimeError, NotImplementedError):  # another build of torch
        return False
