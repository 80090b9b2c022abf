"""What multiplies by INT4 weights fastest.

OpenVINO (https://docs.openvino.ai) reads large layers at more of the memory's speed than any torch
operator found, and multiplies many rows several times faster; torch's own product is quicker to
call, which is what counts in small layers, and is there where OpenVINO is not (docs/performance.md
has the figures).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_backend.graphs import ACTIVATION_GROUP, Shelf, compiled
from glm_backend.models.kernel_choice import CHOICE
from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import Int4Weight, Kernel
from glm_backend.models.row_quantization import RowInt4Weight

#: Columns from which on a layer is read faster by OpenVINO, whatever it costs to call it.
_LARGE_COLUMNS = 2048
_ROWS_AT_ONCE = 1024
#: From here on it matters whether weights are held once or twice.
_LARGE_BYTES = 2**20


def int4_kernel(weight: Int4Weight, bias: Tensor | None) -> Kernel | None:
    """For groups of columns. None where no kernel is there, or it does not add up as it should."""
    if weight.packed.device.type == "cuda":
        fits = weight.rows % 64 == 0 and weight.packed.shape[1] % 512 == 0
        return CudaInt4(weight, bias) if fits and _is_exact(CudaInt4, "cuda") else None
    if weight.packed.device.type != "cpu":
        return None
    kinds: list[type[Kernel]] = [NativeKernel] if NativeKernel.suits(weight) else []
    if weight.zero.dtype is torch.uint8 and _is_exact(OpenVinoInt4):
        kinds.append(OpenVinoInt4)
    elif weight.rows % 16 == 0 and _is_exact(TorchInt4):
        kinds.append(TorchInt4)
    return CHOICE.made(kinds, weight, bias)


def row_int4_kernel(weight: RowInt4Weight, bias: Tensor | None) -> Kernel | None:
    """For a scale a row, with activations in full precision."""
    large = weight.columns >= _LARGE_COLUMNS and weight.columns % ACTIVATION_GROUP == 0
    kinds: list[type[Kernel]] = [NativeKernel] if NativeKernel.suits(weight) else []
    if weight.packed.device.type == "cpu" and large and _is_exact(OpenVinoInt4):
        kinds.append(TwoPartOpenVinoInt4)
    return CHOICE.made(kinds, weight, bias)


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


class OpenVinoInt4(Kernel):
    """OpenVINO's product of compressed weights; activations are rounded to 8 bits in groups.

    A row's result is bit-equal alone and in any company
    (observed, and tested). Not for several threads at once.
    """

    def __init__(self, weight: Int4Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._multiply = _compiled(
            weight.packed,
            (weight.rows, weight.scale.shape[1], weight.group),
            "u4",
            weight.scale,
            weight.zero,
        )

    def product(self, x: Tensor) -> Tensor:
        return self._multiply(x.float())


class TwoPartOpenVinoInt4(Kernel):
    """The same for the authors' own INT4, with activations in two parts of 8 bits each.

    The first part is what OpenVINO would round an activation to, the second what that left over:
    together they are right to 16 bits, for one reading of the weights.
    """

    scale: Tensor

    def __init__(self, weight: RowInt4Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        # Theirs has the even column in the upper half of a byte; OpenVINO reads the lower first.
        swapped = ((weight.packed >> 4) & 15) | (weight.packed << 4)
        shape = (weight.rows, 1, weight.columns)
        self._multiply = _compiled(swapped.view(torch.uint8), shape, "i4")
        self.register_buffer("scale", weight.scale.float())

    def product(self, x: Tensor) -> Tensor:
        wide = x.float()
        groups = wide.view(len(wide), -1, ACTIVATION_GROUP)
        step = groups.abs().amax(2, True).div_(127).clamp_(min=1e-12)
        first = torch.round(groups / step).mul_(step).view_as(wide)
        high, low = self._multiply(torch.cat([first, wide - first])).chunk(2)
        return (high + low).mul_(self.scale)


def _compiled(
    packed: Tensor,
    shape: tuple[int, int, int],
    kind: str,
    scale: Tensor | None = None,
    zero: Tensor | None = None,
) -> Callable[[Tensor], Tensor]:
    """x [rows, columns] float32 -> x @ weight.T, for weights of [rows, groups, group] in 4 bits."""
    import openvino
    from openvino import opset13 as op

    rows, groups, group = shape
    shelf = Shelf(packed.nbytes) if packed.nbytes >= _LARGE_BYTES else None
    source = (packed if shelf is None else shelf.put(packed)).numpy()
    held = openvino.Tensor(source, openvino.Shape(shape), getattr(openvino.Type, kind))
    wide = op.convert(openvino.op.Constant(held, shared_memory=True), "f16")
    if zero is not None:
        zeros = op.constant(zero.numpy().reshape(rows, groups, 1))
        wide = op.subtract(wide, op.convert(zeros, "f16"))
    if scale is not None:
        wide = op.multiply(wide, op.constant(scale.numpy().reshape(rows, groups, 1)))
    flat = op.reshape(wide, op.constant(np.array([rows, groups * group])), False)
    x = op.parameter([-1, groups * group], np.float32)
    model = openvino.Model([op.matmul(x, op.convert(flat, "f32"), False, True)], [x])
    request = compiled(model).create_infer_request()

    def multiply(x: Tensor) -> Tensor:
        if len(x) == 1:  # two are quicker: 8 and 10 ms for the products of a layer of the 6B shape
            return multiply(x.expand(2, -1))[:1]
        x, y = x.contiguous(), torch.empty(len(x), rows)  # held until the product is there
        if len(x):
            request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
            request.set_output_tensor(openvino.Tensor(y.numpy(), shared_memory=True))
            request.infer()
        return y

    multiply.held = (held, source)  # type: ignore[attr-defined] # it may be read at any call
    if shelf is not None:
        multiply(torch.zeros(1, groups * group))  # lays the weights out anew, in memory of its own
        shelf.let_go()
    return multiply


class CudaInt4(Kernel):
    """torch's int4 product for CUDA ("tinygemm"); it computes in bfloat16."""

    scale_zero: Tensor

    def __init__(self, weight: Int4Weight, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._padding = weight.packed.shape[1] * 2 - weight.columns
        self._group = weight.group
        swapped = (weight.packed << 4) | (weight.packed >> 4)  # it reads the even column above
        self._packed = torch._convert_weight_to_int4pack(swapped, 8)
        self.register_buffer("scale_zero", _scale_zero(weight))

    def product(self, x: Tensor) -> Tensor:
        rows = F.pad(x.bfloat16(), (0, self._padding))
        return torch._weight_int4pack_mm(rows, self._packed, self._group, self.scale_zero)


@functools.cache
def _is_exact(kind: Callable[[Int4Weight, None], Kernel], device: str = "cpu") -> bool:
    """Whether the kernel is there and agrees with the plain formula, on a weight of 64 x 1024."""
    q = torch.arange(16, dtype=torch.uint8).repeat(64, 64)
    scale = torch.ones(64, 8, dtype=torch.float16)
    zero = torch.full((64, 8), 3, dtype=torch.uint8)
    weight = Int4Weight(q[:, ::2] | (q[:, 1::2] << 4), scale, zero, 1024)
    expected = (q.float() - 3).sum(1)
    try:
        y = kind(weight.to(torch.device(device)), None)(torch.ones(2, 1024, device=device))
        return torch.allclose(y[0].float().cpu(), expected, rtol=1e-2)
    except (ImportError, AttributeError, RuntimeError, NotImplementedError):
        return False  # not installed, or another build
