"""Linear layers with unquantised weights: joined, and laid out as the CPU reads them fastest.

A matrix-vector product reads each weight once, so its time is that of reading. MKL, which torch
calls for float32, reads plain rows at less than half of the memory's speed on some CPUs; oneDNN
reads its own blocked layout faster (figures in docs/performance.md).
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The rows that the layout is chosen for; it serves any number.
_ROWS = 4


class DenseLinear:
    """Linear layers of one input as one; their own weights become views of the joined one."""

    def __init__(self, *parts: nn.Linear) -> None:
        self.parts = parts
        if len(parts) == 1:
            self.weight: Tensor = parts[0].weight.data
            self.bias: Tensor | None = parts[0].bias
            return
        self.weight = torch.cat([part.weight.data for part in parts])
        heights = [part.out_features for part in parts]
        for part, rows in zip(parts, torch.split(self.weight, heights), strict=True):
            part.weight.data = rows
        self.bias = _joined_bias(parts)

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]"""
        return F.linear(x, self.weight, self.bias)


def _joined_bias(parts: tuple[nn.Linear, ...]) -> Tensor | None:
    if all(part.bias is None for part in parts):
        return None
    like = parts[0].weight
    return torch.cat(
        [like.new_zeros(p.out_features) if p.bias is None else p.bias.data for p in parts]
    )


class PackedLinear:
    """The same in oneDNN's layout, of `nbytes`. What it is made from gives up its weights."""

    def __init__(self, dense: DenseLinear) -> None:
        self._packed = torch.ops.mkldnn._reorder_linear_weight(dense.weight.contiguous(), _ROWS)
        self._bias = dense.bias
        self.nbytes = dense.weight.nbytes  # the layout may pad a little
        for part in dense.parts:
            part.weight = nn.Parameter(part.weight.new_empty(0), requires_grad=False)

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]"""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return y


@functools.cache
def packed_kernel_is_exact() -> bool:
    """Whether oneDNN's product is there and agrees with torch's own."""
    linear = nn.Linear(64, 48)
    x = torch.ones(3, 64)
    try:
        with torch.inference_mode():
            expected = linear(x)
            return torch.allclose(PackedLinear(DenseLinear(linear))(x), expected, atol=1e-5)
    except (AttributeError, RuntimeError):  # another build of torch
        return False
