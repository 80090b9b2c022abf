"""Weight-only INT8 and INT4 for linear layers.

INT8 keeps one scale a row, INT4 a scale and a zero point for each group of 32 columns. On CPUs
where torch has a fast and exact kernel that kernel runs; elsewhere (CUDA, other CPUs) the packed
weights are widened to the activation's precision at each call. Knows nothing of models: a weight
goes in, a module that acts like nn.Linear comes out.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_backend.models.model import Quantization

if TYPE_CHECKING:

    class Target(Protocol):
        """What is asked for; `assembly.Placement` is one."""

        @property
        def quantization(self) -> Quantization: ...
        @property
        def dtype(self) -> torch.dtype: ...
        @property
        def device(self) -> torch.device: ...


INT4_GROUP = 32
SMALLEST_SCALE = 1e-8
#: Rows quantised at a time: their float32 copies stay in the cache, which halves the time.
_ROWS_AT_ONCE = 128


def is_quantizable(module: nn.Module) -> bool:
    """True for plain linear layers; a subclass may use its weight in other ways."""
    return type(module) is nn.Linear


def quantized_linear(weight: Tensor, bias: Tensor | None, target: Target) -> nn.Module:
    """A layer that computes x @ weight.T + bias from a quantised copy of `weight`.

    weight: [out, in], any float type. bias: [out], may still be on the meta device. The layer
    takes x of [..., in] and returns [..., out] in x's type.
    """
    if target.quantization == "int8":
        return _int8_linear(weight, bias, target.device)
    return _int4_linear(weight, bias, target.device)


def _int8_linear(weight: Tensor, bias: Tensor | None, device: torch.device) -> nn.Module:
    q = torch.empty(weight.shape, dtype=torch.int8)
    scale = torch.empty(weight.shape[0])
    for rows in _row_blocks(weight):
        q[rows], scale[rows] = rowwise_int8(weight[rows].float())
    if device.type == "cpu" and int8_kernel_is_exact():
        return OneDnnInt8Linear(q, scale, bias)
    return PortableInt8Linear(q.to(device), scale.to(device), bias)


def _int4_linear(weight: Tensor, bias: Tensor | None, device: torch.device) -> nn.Module:
    rows, columns = weight.shape
    padded = -(-columns // INT4_GROUP) * INT4_GROUP
    q = torch.empty(rows, padded, dtype=torch.uint8)
    scale_zero = torch.empty(rows, padded // INT4_GROUP, 2, dtype=torch.bfloat16)
    for block in _row_blocks(weight):
        wide = F.pad(weight[block].float(), (0, padded - columns))
        q[block], scale_zero[block] = groupwise_int4(wide)
    if device.type == "cpu" and rows % 16 == 0 and int4_kernel_is_exact():
        return PackedInt4Linear(q, scale_zero, bias, columns)
    return PortableInt4Linear(q.to(device), scale_zero.to(device), bias, columns)


def _row_blocks(weight: Tensor) -> list[slice]:
    return [slice(i, i + _ROWS_AT_ONCE) for i in range(0, weight.shape[0], _ROWS_AT_ONCE)]


def rowwise_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float [N, K] -> int8 [N, K] and scale [N], weight = q * scale."""
    scale = weight.abs().amax(1).clamp(min=SMALLEST_SCALE) / 127
    return torch.round(weight / scale[:, None]).to(torch.int8), scale


def groupwise_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """float [N, K] -> uint8 [N, K] of 0..15 and bf16 [N, K / 32, 2] of (scale, zero).

    weight = (q - 8) * scale + zero. The values are rounded with the scales as stored, so that
    their rounding to bf16 costs no accuracy a second time.
    """
    groups = weight.view(weight.shape[0], -1, INT4_GROUP)
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / 15).clamp(min=SMALLEST_SCALE).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    steps = (groups - zero.float()[..., None]) / scale.float()[..., None]
    q = torch.round(steps + 8).clamp(0, 15).to(torch.uint8).view_as(weight)
    return q, torch.stack([scale, zero], -1)


class OneDnnInt8Linear(nn.Module):
    """oneDNN's u8 x s8 product. A row's result is bit-equal alone and in any company.

    The kernel takes one scale for the whole call, so each row is divided by its own largest value
    first; integers then add up the same whatever rows stand beside it.
    """

    packed: Tensor
    bias: nn.Parameter | None

    def __init__(self, q: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = q.shape
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(q, None))
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros(len(scale), dtype=torch.int64))
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features).float()  # [rows, in]
        absmax = rows.abs().amax(1, keepdim=True).clamp(min=SMALLEST_SCALE)
        y = self.product(torch.round(rows / absmax * 127))
        return finished(y.mul_(absmax), x, self.bias)

    def product(self, levels: Tensor) -> Tensor:
        """(levels / 127) @ weight.T; levels: [rows, in], whole numbers from -127 to 127."""
        y: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels.add(128).to(torch.uint8), 1 / 127, 128, self.packed, self.scale, self.zeros,
            None, 1.0, 0, torch.float32, "none", [], "none",
        )  # fmt: skip
        return y


class PortableInt8Linear(nn.Module):
    """Widens the weights at each call: correct on every device, fast on none."""

    q: Tensor
    scale: Tensor
    bias: nn.Parameter | None

    def __init__(self, q: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = q.shape
        self.register_buffer("q", q)
        self.register_buffer("scale", scale)
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.q.to(x.dtype)).float() * self.scale
        return finished(y, x, self.bias)


class PackedInt4Linear(nn.Module):
    """torch's int4 product for CPUs. It computes in bf16."""

    packed: Tensor
    scale_zero: Tensor
    bias: nn.Parameter | None

    def __init__(self, q: Tensor, scale_zero: Tensor, bias: Tensor | None, columns: int) -> None:
        super().__init__()
        self.out_features, self.in_features = q.shape[0], columns
        self.padding = q.shape[1] - columns
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.to(torch.int32), 1)
        self.register_buffer("packed", packed)
        # [groups, out, 2], as the kernel reads it
        self.register_buffer("scale_zero", scale_zero.transpose(0, 1).contiguous())
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        rows = F.pad(x.reshape(-1, self.in_features).bfloat16(), (0, self.padding))
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.packed, INT4_GROUP, self.scale_zero
        )
        return finished(y, x, self.bias)


class PortableInt4Linear(nn.Module):
    """Two weights a byte (even column high), widened at each call."""

    packed: Tensor
    scale_zero: Tensor
    bias: nn.Parameter | None

    def __init__(self, q: Tensor, scale_zero: Tensor, bias: Tensor | None, columns: int) -> None:
        super().__init__()
        self.out_features, self.in_features = q.shape[0], columns
        self.register_buffer("packed", (q[:, ::2] << 4) | q[:, 1::2])
        self.register_buffer("scale_zero", scale_zero)
        self.register_parameter("bias", frozen(bias))

    def weight(self, dtype: torch.dtype) -> Tensor:
        """The dequantised weights [out, in]."""
        q = torch.stack([self.packed >> 4, self.packed & 15], -1).to(dtype)
        groups = q.view(self.out_features, -1, INT4_GROUP)
        scale, zero = self.scale_zero.to(dtype)[..., None].unbind(2)
        wide = ((groups - 8) * scale + zero).view(self.out_features, -1)
        return wide[:, : self.in_features]

    def forward(self, x: Tensor) -> Tensor:
        return finished(F.linear(x, self.weight(x.dtype)), x, self.bias)


def frozen(bias: Tensor | None) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias, requires_grad=False)


def finished(y: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """y as [..., out] in x's type, with the bias added."""
    if bias is not None:
        y = y + bias
    return y.to(x.dtype).view(*x.shape[:-1], y.shape[-1])


@functools.cache
def int8_kernel_is_exact() -> bool:
    """Whether oneDNN's product is there and does not saturate (CPUs without VNNI may)."""
    try:
        layer = OneDnnInt8Linear(torch.full((16, 256), 127, dtype=torch.int8), torch.ones(16), None)
        return bool((layer(torch.ones(1, 256)) == 127.0 * 256).all())
    except (AttributeError, RuntimeError):  # another build of torch
        return False


@functools.cache
def int4_kernel_is_exact() -> bool:
    """Whether torch's int4 product is there and agrees with the plain formula."""
    q = torch.arange(16, dtype=torch.uint8).repeat(16, 4)  # [16, 64]
    scale_zero = torch.tensor([1.0, 8.0]).expand(16, 2, 2).bfloat16().contiguous()
    try:
        layer = PackedInt4Linear(q, scale_zero, None, 64)
        return bool((layer(torch.ones(1, 64)) == 480).all())  # 4 * (0 + 1 + ... + 15)
    except (AttributeError, RuntimeError):
        return False


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all weights and buffers that `module` holds; shared ones count once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.nbytes for t in tensors.values())
