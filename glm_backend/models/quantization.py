"""Weights in 8 and 4 bits: the forms they are kept in, and a linear layer that holds one.

Three forms: INT8 with a scale a row; INT4 in groups of columns, each with a scale and a zero; and
the INT4 that the authors of ChatGLM publish, with a scale a row (row_quantization.py). A layer
computes by itself on every device, by widening its weights at each call; `packed` lays several of
them out for the kernel that is fastest here (int8_kernels.py, int4_kernels.py). Knows nothing of
models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glm_backend.native.products import Laid

SMALLEST_SCALE = 1e-8
#: Numbers quantised at a time: their float32 copies stay in the cache, and in memory that the
#: process has. Larger ones are asked for anew each time while a model is loaded (allocator.py), six
#: times as slowly.
_NUMBERS_AT_ONCE = 2**16
#: Numbers widened at a time where no kernel fits: they stay in a CPU's cache, and keep a GPU busy.
_WIDENED_AT_ONCE, _WIDENED_ON_GPU = 2**20, 2**26
#: Columns that share a scale and a zero. Few keep more accuracy; where a layer is so large that
#: reading it is what takes the time, many are read faster (docs/performance.md).
SMALL_GROUP, LARGE_GROUP = 32, 128
_LARGE_COLUMNS = 2048


class QuantizedWeight(Protocol):
    """A matrix [rows, columns] in few bits."""

    kind: ClassVar[str]

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    def tensors(self) -> dict[str, Tensor]:
        """What it is made of, by name."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...

    def part(self, rows: slice | Tensor) -> Self:
        """Some of the rows, or all in another order; they are independent of each other."""
        ...

    def joined(self, others: Sequence[Self]) -> Self:
        """One matrix with the rows of all of them."""
        ...

    def dense(self, rows: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        """Some of the rows as numbers: [rows, columns], rounded once."""
        ...

    def kernel(self, bias: Tensor | None) -> Kernel | None:
        """What multiplies by it fastest on its device; None where nothing beats widening it."""
        ...

    def library_kernels(self) -> list[type[Kernel]]:
        """What libraries multiply by it with on CPUs, and add up as they should."""
        ...

    @property
    def has_native(self) -> bool:
        """Whether our own kernels multiply by it here."""
        ...

    @property
    def native_leads(self) -> bool:
        """Whether a whole pass of them is the fastest for a model of such weights."""
        ...

    def native(self) -> Laid:
        """It as they read it, if they do."""
        ...

    @classmethod
    def like(cls, weight: Tensor) -> Self:
        """A small weight, float32 [rows, columns], in this form."""
        ...


class Kernel(nn.Module):
    """A linear layer whose weight lies as one operation reads it. nbytes: what that takes."""

    bias: nn.Parameter | None

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.rows, weight.columns
        self.register_parameter("bias", frozen(bias))
        self.nbytes = sum(tensor.nbytes for tensor in weight.tensors().values())

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], in the same type."""
        y = self.multiply(x.reshape(-1, self.in_features))
        return y.view(*x.shape[:-1], self.out_features)

    def multiply(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out], in the same type."""
        y = self.product(x)
        if self.bias is not None:
            y += self.bias
        return y.to(x.dtype)

    def product(self, x: Tensor) -> Tensor:
        """x @ weight.T; [rows, in] -> a new [rows, out]."""
        raise NotImplementedError


class Native:
    """A weight that our own kernels may multiply by (native_kernels.py)."""

    __slots__ = ()

    @property
    def has_native(self: QuantizedWeight) -> bool:
        from glm_backend.models.native_kernels import has_native

        return has_native(self)

    @property
    def native_leads(self: QuantizedWeight) -> bool:
        from glm_backend.models.native_kernels import native_leads

        return native_leads(self)

    def native(self: QuantizedWeight) -> Laid:
        from glm_backend.models.native_kernels import laid_out

        return laid_out(self)


@dataclass(frozen=True, slots=True)
class Int8Weight(Native):
    """weight = scale[row] * q. q: int8 [rows, columns]; scale: float32 [rows].

    exact: activations are not to be rounded to 8 bits (published weights). uneven: some of them are
    so much larger than others that one scale for a row of them is too coarse.
    """

    kind: ClassVar[str] = "int8"
    q: Tensor
    scale: Tensor
    exact: bool = False
    uneven: bool = False

    @property
    def rows(self) -> int:
        return self.q.shape[0]

    @property
    def columns(self) -> int:
        return self.q.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        return {"q": self.q, "scale": self.scale}

    def to(self, device: torch.device) -> Int8Weight:
        return replace(self, q=self.q.to(device), scale=self.scale.to(device))

    def part(self, rows: slice | Tensor) -> Int8Weight:
        return replace(self, q=self.q[rows], scale=self.scale[rows])

    def joined(self, others: Sequence[Int8Weight]) -> Int8Weight:
        if not others:
            return self
        parts = (self, *others)
        q, scale = torch.cat([p.q for p in parts]), torch.cat([p.scale for p in parts])
        return replace(self, q=q, scale=scale)

    def dense(self, rows: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        q, scale = self.q[rows], self.scale[rows, None]
        return torch.mul(q, scale, out=torch.empty(q.shape, dtype=dtype, device=q.device))

    def kernel(self, bias: Tensor | None) -> Kernel | None:
        from glm_backend.models.int8_kernels import int8_kernel

        return int8_kernel(self, bias)

    def library_kernels(self) -> list[type[Kernel]]:
        from glm_backend.models.int8_kernels import library_kernels

        return library_kernels(self)

    @classmethod
    def like(cls, weight: Tensor) -> Int8Weight:
        return quantized_int8(weight)


@dataclass(frozen=True, slots=True)
class Int4Weight(Native):
    """q from 0 to 15, with a scale and a zero for each group of columns of a row.

    packed: uint8 [rows, padded columns / 2], the even column in the lower half of a byte. Large
    groups: weight = (q - zero) * scale; scale: float16, zero: uint8 [rows, groups]. Small groups:
    weight = (q - 8) * scale + zero, both bfloat16, so that weights which were four bits with an
    offset before lose next to nothing. The columns are padded to whole groups.
    """

    kind: ClassVar[str] = "int4"
    packed: Tensor
    scale: Tensor
    zero: Tensor
    columns: int

    @property
    def rows(self) -> int:
        return self.packed.shape[0]

    @property
    def group(self) -> int:
        """Columns of one group."""
        return self.packed.shape[1] * 2 // self.scale.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        return {"packed": self.packed, "scale": self.scale, "zero": self.zero}

    def to(self, device: torch.device) -> Int4Weight:
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        return Int4Weight(**moved, columns=self.columns)

    def part(self, rows: slice | Tensor) -> Int4Weight:
        return Int4Weight(self.packed[rows], self.scale[rows], self.zero[rows], self.columns)

    def joined(self, others: Sequence[Int4Weight]) -> Int4Weight:
        if not others:
            return self
        parts = (self, *others)
        packed, scale, zero = (
            torch.cat([getattr(p, name) for p in parts]) for name in ("packed", "scale", "zero")
        )
        return Int4Weight(packed, scale, zero, self.columns)

    def levels(self, rows: slice) -> Tensor:
        """q: uint8 [rows, padded columns]."""
        packed = self.packed[rows]
        return torch.stack([packed & 15, packed >> 4], -1).flatten(1)

    @property
    def middle(self) -> Tensor:
        """The weight that q = 8 stands for: float32 [rows, groups]."""
        if self.zero.dtype is torch.uint8:
            return (8 - self.zero.float()) * self.scale.float()
        return self.zero.float()

    def dense(self, rows: slice, dtype: torch.dtype = torch.float32) -> Tensor:
        q = self.levels(rows).float().view(len(self.packed[rows]), -1, self.group)
        wide = (q - 8) * self.scale[rows, :, None].float() + self.middle[rows, :, None]
        return wide.flatten(1)[:, : self.columns].to(dtype)

    def kernel(self, bias: Tensor | None) -> Kernel | None:
        from glm_backend.models.int4_kernels import int4_kernel

        return int4_kernel(self, bias)

    def library_kernels(self) -> list[type[Kernel]]:
        from glm_backend.models.int4_kernels import library_kernels

        return library_kernels(self)

    @classmethod
    def like(cls, weight: Tensor) -> Int4Weight:
        return quantized_int4(weight)


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is in few bits: [..., in] -> [..., out], in the same type."""

    bias: nn.Parameter | None

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.weight: QuantizedWeight | None = weight
        self.out_features, self.in_features = weight.rows, weight.columns
        for name, tensor in weight.tensors().items():
            self.register_buffer(f"weight_{name}", tensor)
        self.register_parameter("bias", frozen(bias))

    def forward(self, x: Tensor) -> Tensor:
        return WidenedLinear(self._held(), self.bias)(x)  # type: ignore[no-any-return]

    def packed(self, *others: QuantizedLinear, order: Tensor | None = None) -> Kernel:
        """One layer in the place of this one and of `others`, as its kernel reads it fastest.

        They let go of their weights. order: the rows of all in the order in which they are wanted.
        """
        weight, bias = self.joined(*others, order=order)
        return weight.kernel(bias) or WidenedLinear(weight, bias)

    def joined(
        self, *others: QuantizedLinear, order: Tensor | None = None
    ) -> tuple[QuantizedWeight, Tensor | None]:
        """One weight and bias in the place of those of this layer and of `others`, as `packed`."""
        layers = (self, *others)
        weight = self._held().joined([layer._held() for layer in others])
        bias = joined_bias(layers)
        if order is not None:
            weight, bias = weight.part(order), None if bias is None else bias[order]
        for layer in layers:
            layer.let_go()
        return weight, bias

    def let_go(self) -> None:
        """Gives up the weight: a kernel holds it in another layout."""
        self.weight = None
        for name in list(self._buffers):
            del self._buffers[name]

    def _held(self) -> QuantizedWeight:
        assert self.weight is not None, "it was packed; its kernel computes"
        return self.weight


class WidenedLinear(Kernel):
    """Widens the weights block by block at each call: right everywhere, fast nowhere."""

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._weight = weight

    def product(self, x: Tensor) -> Tensor:
        step = max(1, (_WIDENED_ON_GPU if x.is_cuda else _WIDENED_AT_ONCE) // self.in_features)
        blocks = [
            F.linear(x, self._weight.dense(slice(i, i + step), x.dtype))
            for i in range(0, self.out_features, step)
        ]
        return torch.cat(blocks, -1)


def is_quantizable(module: nn.Module) -> bool:
    """True for plain linear layers; a subclass may use its weight in other ways."""
    return type(module) is nn.Linear


def quantized_int8(weight: Tensor, through: Callable[[Tensor], Tensor] | None = None) -> Int8Weight:
    """One scale a row: scale = absmax / 127. through: what becomes of rows before."""
    q = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scale = torch.empty(weight.shape[0], device=weight.device)
    for rows in row_blocks(weight):
        wide = weight[rows].float() if through is None else through(weight[rows])
        scale[rows] = wide.abs().amax(1).clamp(min=SMALLEST_SCALE) / 127
        q[rows] = torch.round(wide / scale[rows, None]).to(torch.int8)
    return Int8Weight(q, scale)


def quantized_int4(weight: Tensor, group: int | None = None) -> Int4Weight:
    """Groups of 128 columns for large layers whose width is a multiple of that, else of 32."""
    rows, columns = weight.shape
    if group is None:
        large = columns >= _LARGE_COLUMNS and columns % LARGE_GROUP == 0
        group = LARGE_GROUP if large else SMALL_GROUP
    groups = -(-columns // group)
    whole = group == LARGE_GROUP
    device = weight.device
    packed = torch.empty(rows, groups * group // 2, dtype=torch.uint8, device=device)
    scale = torch.empty(
        rows, groups, dtype=torch.float16 if whole else torch.bfloat16, device=device
    )
    zero = torch.empty(rows, groups, dtype=torch.uint8 if whole else torch.bfloat16, device=device)
    for block in row_blocks(weight):
        wide = F.pad(weight[block].float(), (0, groups * group - columns)).view(-1, groups, group)
        q, scale[block], zero[block] = groupwise_int4(wide, whole_zeros=whole)
        packed[block] = q[:, ::2] | (q[:, 1::2] << 4)
    return Int4Weight(packed, scale, zero, columns)


def groupwise_int4(groups: Tensor, *, whole_zeros: bool) -> tuple[Tensor, Tensor, Tensor]:
    """float32 [rows, groups, group] -> q uint8 [rows, columns], scale and zero [rows, groups].

    The values are rounded with scale and zero as stored, so that their own rounding costs no
    accuracy a second time. Zeros that are whole ask for a range that holds zero itself.
    """
    low, high = groups.amin(2), groups.amax(2)
    if whole_zeros:
        low, high = low.clamp(max=0), high.clamp(min=0)
        scale = ((high - low) / 15).clamp(min=2**-14).half()  # below it float16 has fewer digits
        zero = torch.round(-low / scale.float()).clamp(0, 15).to(torch.uint8)
        middle = (8 - zero.float()) * scale.float()
    else:
        scale = ((high - low) / 15).clamp(min=SMALLEST_SCALE).bfloat16()
        zero = (low + 8 * scale.float()).bfloat16()
        middle = zero.float()
    steps = (groups - middle[..., None]) / scale.float()[..., None]
    q = torch.round(steps + 8).clamp(0, 15)
    return q.to(torch.uint8).flatten(1), scale, zero


def row_blocks(weight: Tensor) -> list[slice]:
    """The rows of a matrix in portions that are widened at a time."""
    rows, columns = weight.shape
    step = max(1, _NUMBERS_AT_ONCE // columns)
    return [slice(i, i + step) for i in range(0, rows, step)]


def joined_bias(layers: Sequence[nn.Module]) -> Tensor | None:
    """The biases of layers that become one, zeros for those without; None where none has one."""
    biases = [layer._parameters["bias"] for layer in layers]
    like = next((bias for bias in biases if bias is not None), None)
    if like is None:
        return None
    sizes = [int(layer.out_features) for layer in layers]  # type: ignore[arg-type]
    return torch.cat(
        [like.new_zeros(n) if b is None else b.data for n, b in zip(sizes, biases, strict=True)]
    )


def frozen(bias: Tensor | None) -> nn.Parameter | None:
    return None if bias is None else nn.Parameter(bias, requires_grad=False)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of all weights and buffers that `module` holds; shared ones count once."""
    tensors: dict[int, Tensor] = {}
    kernels = 0
    for part in module.modules():
        if hasattr(part, "nbytes"):  # a kernel, which may hold its weights outside of torch
            kernels += int(part.nbytes)  # type: ignore[arg-type]
        else:
            own = (*part.parameters(recurse=False), *part.buffers(recurse=False))
            tensors |= {id(tensor): tensor for tensor in own}
    return kernels + sum(tensor.nbytes for tensor in tensors.values())
