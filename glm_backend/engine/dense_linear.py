"""Linear layers with unquantised weights: joined, and laid out as the CPU reads them fastest.

A matrix-vector product reads each weight once, so its time is that of reading. MKL, which torch
calls for float32, reads plain rows at less than half of the memory's speed on some CPUs; oneDNN
reads its own blocked layout faster (figures in docs/performance.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The rows that the layout is chosen for; it serves any number.
_ROWS = 4


class DenseLinear:
    """Linear layers of one input as one, which take its place: theirs let go of their weights.

    order: the rows of the joined weight in the order in which they are wanted.
    """

    def __init__(self, parts: Sequence[nn.Linear], order: Tensor | None = None) -> None:
        weight = parts[0].weight.data
        if len(parts) > 1:
            weight = torch.cat([part.weight.data for part in parts])
        bias = _joined_bias(parts)
        if order is not None:
            weight, bias = weight[order], None if bias is None else bias[order]
        self._bias = bias
        self.nbytes = weight.nbytes + (0 if bias is None else bias.nbytes)
        for part in parts:
            part.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        self._set(weight)

    def _set(self, weight: Tensor) -> None:
        self._weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """[rows, in] -> [rows, out]"""
        return F.linear(x, self._weight, self._bias)


class PackedLinear(DenseLinear):
    """The same in oneDNN's layout, for float32 on CPUs."""

    def _set(self, weight: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = _product()(x, self._weight, self._bias)
        return y


@functools.cache
def _product() -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """oneDNN's product. As a function of TorchScript: its empty list cannot be recorded."""
    unit = torch.jit.CompilationUnit("""
        def product(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
            none: List[Optional[number]] = []
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", none, "")
    """)
    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = unit.product
    return product


def _joined_bias(parts: Sequence[nn.Linear]) -> Tensor | None:
    if all(part.bias is None for part in parts):
        return None
    like = parts[0].weight
    return torch.cat(
        [like.new_zeros(p.out_features) if p.bias is None else p.bias.data for p in parts]
    )


@functools.cache
def packed_kernel_is_exact() -> bool:
    """Whether oneDNN's product is there and agrees with torch's own."""
    linear = nn.Linear(64, 48)
    x = torch.ones(3, 64)
    try:
        with torch.inference_mode():
            expected = linear(x)
            return torch.allclose(PackedLinear([linear])(x), expected, atol=1e-5)
    except (AttributeError, RuntimeError):  # another build of torch
        return False
