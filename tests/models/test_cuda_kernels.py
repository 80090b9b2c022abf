"""What CUDA's kernels are given, without a GPU.

In the place of torch's two products stand functions that take the same tensors under the same
conditions (aten/src/ATen/native/cuda/int4mm.cu and int8mm.cu of torch 2.13), on the CPU.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glm_backend.models import int4_kernels, int8_kernels
from glm_backend.models.int4_kernels import CudaInt4, CudaRowInt4
from glm_backend.models.int8_kernels import CudaInt8
from glm_backend.models.quantization import WidenedLinear, quantized_int4, quantized_int8
from glm_backend.models.row_quantization import RowInt4Weight


def packed_for_cuda(packed: Tensor, inner_tiles: int) -> Tensor:
    """uint8 [rows, columns / 2], the even column in the upper half, in the shape of the real one.

    Only the order of the values within is another.
    """
    rows, columns = packed.shape[0], packed.shape[1] * 2
    assert packed.dtype is torch.uint8
    assert packed.is_contiguous()
    assert inner_tiles in (2, 4, 8)
    assert columns % (inner_tiles * 16) == 0
    levels = torch.stack([packed >> 4, packed & 15], -1).flatten(1)
    words = levels.view(rows // 8, 8, columns // (inner_tiles * 16), inner_tiles * 16)
    words = words.permute(0, 2, 1, 3).reshape(rows // 8, -1, 32, inner_tiles // 2, 8)
    return (words.int() << torch.arange(0, 32, 4, dtype=torch.int32)).sum(-1).int()


def int4_product(x: Tensor, packed: Tensor, group: int, scale_zero: Tensor) -> Tensor:
    tiles, columns = packed.shape[3] * 2, x.shape[1]
    assert x.dtype is torch.bfloat16
    assert x.is_contiguous()
    assert packed.shape[1] == columns // (tiles * 16)
    assert group in (32, 64, 128, 256)
    assert columns % group == 0
    rows = packed.shape[0] * 8
    assert scale_zero.shape == (columns // group, rows, 2)
    assert scale_zero.dtype is torch.bfloat16
    levels = (packed[..., None] >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
    levels = levels.view(rows // 8, packed.shape[1], 8, tiles * 16).permute(0, 2, 1, 3)
    levels = levels.reshape(rows, -1, group) - 8
    scale, zero = scale_zero.float().permute(2, 1, 0)[..., None]
    weight = (levels * scale + zero).bfloat16().flatten(1)
    return (x.float() @ weight.float().T).bfloat16()


@pytest.fixture(autouse=True)
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The products stood in for; in it: of how many rows each INT8 product was."""
    asked: list[int] = []

    def int8_product(x: Tensor, q: Tensor, scale: Tensor) -> Tensor:
        assert q.dtype is torch.int8
        assert scale.dtype is torch.float32  # anything else it widens at every call
        assert (x.shape[1], scale.shape) == (q.shape[1], (q.shape[0],))
        asked.append(len(x))
        return ((x.float() @ q.float().T) * scale).to(x.dtype)

    monkeypatch.setattr(torch, "_weight_int8pack_mm", int8_product)
    monkeypatch.setattr(torch, "_convert_weight_to_int4pack", packed_for_cuda)
    monkeypatch.setattr(torch, "_weight_int4pack_mm", int4_product)
    return asked


def weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02


def activations(rows: int, columns: int) -> Tensor:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1))
    return x.bfloat16()


def assert_near(got: Tensor, want: Tensor, most: float) -> None:
    assert got.dtype is torch.bfloat16
    assert float((got.float() - want).norm() / want.norm()) < most


#: Among them a width as ChatGLM2's down projection has it (an odd multiple of 128) and SmolLM2's.
SHAPES = [(64, 1024), (72, 128 * 13), (64, 576), (16, 96)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("group", [32, 128])
def test_int4_in_groups(shape: tuple[int, int], group: int) -> None:
    held = quantized_int4(weight(*shape), group)
    x, bias = activations(3, shape[1]), torch.randn(shape[0]).bfloat16()
    want = x.float() @ held.dense(slice(None)).T + bias.float()
    assert_near(CudaInt4(held, bias)(x), want, 0.01)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_int4_as_the_authors_publish_it(shape: tuple[int, int]) -> None:
    held = RowInt4Weight.like(weight(*shape) * torch.logspace(-2, 2, shape[0])[:, None])
    x = activations(3, shape[1])
    kernel = CudaRowInt4(held, None)
    want = x.float() @ held.dense().T
    assert_near(kernel(x), want, 0.01)
    # Only activations and what comes out are rounded: a row's scale is not.
    one_hot = torch.eye(shape[1])[:2].bfloat16()
    assert torch.equal(kernel(one_hot), held.dense()[:, :2].T.bfloat16())


@pytest.mark.parametrize("shape", [(64, 576), (200, 1024)], ids=str)
def test_int8(shape: tuple[int, int], products: list[int]) -> None:
    held = quantized_int8(weight(*shape))
    kernel = CudaInt8(held, torch.ones(shape[0]).bfloat16())
    for rows in (1, 32, 33, 300):
        x = activations(rows, shape[1])
        assert_near(kernel(x), x.float() @ held.dense(slice(None)).T + 1, 0.01)
    assert products == [1, 32]  # a prompt is not its work


def test_what_is_there_is_tried_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    int4_is_exact, int8_is_exact = (
        kernels._is_exact.__wrapped__ for kernels in (int4_kernels, int8_kernels)
    )
    for tiles in (8, 4, 2):
        assert int4_is_exact(CudaInt4, "cpu", 1024 + 16 * tiles)
    assert int8_is_exact(CudaInt8, "cpu", torch.bfloat16)

    def wrong(x: Tensor, *_: object) -> Tensor:
        return torch.zeros(len(x), 64, dtype=torch.bfloat16)

    monkeypatch.setattr(torch, "_weight_int4pack_mm", wrong)
    monkeypatch.setattr(torch, "_weight_int8pack_mm", wrong)
    assert not int4_is_exact(CudaInt4, "cpu")
    assert not int8_is_exact(CudaInt8, "cpu", torch.bfloat16)


@pytest.mark.parametrize(
    ("rows", "columns", "fits"),
    [
        (4608, 4096, True),
        (4096, 13696, True),
        (65024, 4096, True),
        (64, 48, False),
        (63, 64, False),
    ],
)
def test_which_shapes_the_int4_kernel_takes(
    rows: int, columns: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int4_kernels, "_is_exact", lambda *_: True)
    packed = torch.empty(rows, columns // 2, dtype=torch.uint8, device="meta")
    assert int4_kernels._suits_cuda(packed) is fits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_weights_are_widened_with_one_rounding(dtype: torch.dtype) -> None:
    held = quantized_int8(weight(24, 64))
    exact = held.q.double() * held.scale.double()[:, None]
    assert torch.equal(held.dense(slice(3, 20), dtype), exact[3:20].to(dtype))
    x = torch.eye(64, dtype=dtype)
    assert torch.equal(WidenedLinear(held, None)(x), held.dense(slice(None), dtype).T)
