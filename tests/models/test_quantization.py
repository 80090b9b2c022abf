"""INT8 and INT4: how far from full precision, how small, and the same in any company."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config

from glm_backend.language_model import LanguageModel
from glm_backend.models.int4_kernels import TorchInt4, int4_kernel
from glm_backend.models.int8_kernels import (
    FbgemmInt8,
    OneDnnInt8,
    TwoPartFbgemm,
    TwoPartOneDnn,
    int8_kernel,
)
from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel, Quantization
from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import (
    Kernel,
    QuantizedLinear,
    QuantizedWeight,
    WidenedLinear,
    quantized_int4,
    quantized_int8,
    weight_bytes,
)
from glm_backend.native.compiled import is_possible
from tests.models import tiny

BOTH: tuple[Quantization, ...] = ("int8", "int4")
#: Relative error of one layer on random weights, the most that is accepted.
MOST_ERROR = {"int8": 0.02, "int4": 0.12}
#: Goes on with a word that is far ahead of the next likely one, whatever kernel rounds it.
CAPITAL = "The capital of France is the city of"


def weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02


def quantized(w: Tensor, kind: Quantization) -> QuantizedWeight:
    return quantized_int8(w) if kind == "int8" else quantized_int4(w)


def activations(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def error(got: Tensor, want: Tensor) -> float:
    return float((got.float() - want).norm() / want.norm())


#: Every way to multiply by a weight of each kind, on the shapes that it takes.
def kernels(kind: Quantization, w: Tensor, bias: Tensor | None) -> list[Kernel]:
    held = quantized(w, kind)
    found: list[Kernel] = [WidenedLinear(held, bias)]
    if held.has_native:
        found.append(NativeKernel(held, bias))
    if kind == "int8":
        return [*found, FbgemmInt8(quantized_int8(w), bias), OneDnnInt8(quantized_int8(w), bias)]
    if w.shape[0] % 16 == 0:
        found.append(TorchInt4(quantized_int4(w), bias))
    if w.shape[1] % 128 == 0:
        large = quantized_int4(w, group=128)
        found += [WidenedLinear(large, bias), TorchInt4(large, bias)]
        if large.has_native:
            found.append(NativeKernel(large, bias))
    return found


def test_the_fast_kernels_run_here_or_say_that_they_do_not() -> None:
    """(On x86 they do; where they do not, the next test still holds what is taken instead.)"""
    chosen = [
        int8_kernel(quantized_int8(weight(64, 64)), None),
        int4_kernel(quantized_int4(weight(64, 64)), None),
        int4_kernel(quantized_int4(weight(64, 2048)), None),
    ]
    small, small4, large4 = (type(kernel).__name__ for kernel in chosen)
    assert small in {"FbgemmInt8", "OneDnnInt8"}
    assert small4 == "TorchInt4"
    assert large4 in {"TorchInt4", "NativeKernel"}


def test_a_large_layer_may_have_our_own_kernel_and_a_small_one_not() -> None:
    """A pass of small layers is recorded, and this cannot be (engine/recorded_pass.py)."""
    assert not NativeKernel.suits(quantized_int8(weight(64, 64)))
    assert NativeKernel.suits(quantized_int8(weight(64, 2048))) == is_possible()


@pytest.mark.parametrize("kernel", [TwoPartFbgemm, TwoPartOneDnn])
def test_activations_in_two_parts_are_right_to_sixteen_bits(
    kernel: type[FbgemmInt8 | OneDnnInt8],
) -> None:
    held, x = quantized_int8(weight(96, 576)), activations(7, 576)
    x[3] *= 1000
    x[4] = 0
    want = nn.functional.linear(x, held.dense(slice(0, 96)))
    got = kernel(held, None)(x)
    assert error(got[:3], want[:3]) < 1e-4
    assert error(got[3], want[3]) < 1e-4
    assert not got[4].any()
    alone = torch.cat([kernel(held, None)(row[None]) for row in x])
    assert torch.equal(got, alone)


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    "shape", [(64, 576), (1536, 576), (48, 100), (33, 48), (8, 16), (80, 256)], ids=str
)
def test_a_layer_stays_close_to_full_precision(kind: Quantization, shape: tuple[int, int]) -> None:
    w, bias, x = weight(*shape), activations(shape[0]), activations(2, 5, shape[1])
    want = nn.functional.linear(x, w, bias)
    layers = [*kernels(kind, w, bias), QuantizedLinear(quantized(w, kind), bias)]
    layers.append(QuantizedLinear(quantized(w, kind), bias).packed())
    for layer in layers:
        got = layer(x)
        assert got.shape == want.shape
        assert got.dtype == x.dtype
        assert error(got - bias, want - bias) < MOST_ERROR[kind], layer


@pytest.mark.parametrize("kind", BOTH)
def test_half_precision_activations_come_back_in_their_type(kind: Quantization) -> None:
    w, x = weight(64, 128), activations(3, 128)
    for dtype in (torch.bfloat16, torch.float16):
        for layer in kernels(kind, w, None):
            got = layer(x.to(dtype))
            assert got.dtype == dtype
            assert error(got, x @ w.T) < MOST_ERROR[kind] + 0.01


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("shape", [(576, 1536), (96, 4096)], ids=str)
def test_a_row_is_the_same_alone_and_in_company(kind: Quantization, shape: tuple[int, int]) -> None:
    rows = 70
    x = activations(rows, shape[1]) * torch.logspace(-3, 3, rows)[:, None]
    for layer in kernels(kind, weight(*shape), None)[1:]:
        if isinstance(layer, WidenedLinear):  # plain float32: nothing is promised
            continue
        together = layer(x)
        for few in (1, 2, 3, 16, 33):
            for first in range(0, rows - few, 17):
                assert torch.equal(layer(x[first : first + few]), together[first : first + few])


@pytest.mark.parametrize("kind", BOTH)
def test_zero_rows_and_zero_weights_are_no_trouble(kind: Quantization) -> None:
    for layer in kernels(kind, torch.zeros(16, 128), None):
        assert torch.equal(layer(torch.zeros(2, 128)), torch.zeros(2, 16)), layer
        assert layer(torch.zeros(0, 128)).shape == (0, 16)


@pytest.mark.parametrize("kind", BOTH)
def test_layers_of_one_input_become_one_in_any_order(kind: Quantization) -> None:
    weights = [weight(64, 128), activations(32, 128), activations(32, 128) * 0.1]
    biases = [activations(64), None, activations(32)]
    layers = [QuantizedLinear(quantized(w, kind), b) for w, b in zip(weights, biases, strict=True)]
    x, order = activations(5, 128), torch.randperm(128)
    apart = torch.cat([layer(x) for layer in layers], -1)
    one = layers[0].packed(*layers[1:], order=order)
    assert error(one.multiply(x), apart[:, order]) < 0.02
    assert sum(weight_bytes(layer) for layer in layers) == 4 * 96  # only their biases
    assert one.nbytes < 128 * 128 * (1.2 if kind == "int8" else 0.7)


def test_int4_keeps_values_that_are_four_bits_already() -> None:
    """Q4_1 weights, as the starter's are, lose next to nothing a second time."""
    levels = torch.arange(16.0).repeat(64 * 9 * 2).view(64 * 9, 32)
    w = (levels * 0.0123 - weight(64 * 9, 1).abs()).view(64, 9 * 32)
    assert error(quantized_int4(w).dense(slice(None)), w) < 0.01


@pytest.mark.parametrize("kind", BOTH)
def test_a_whole_model_with_biases_is_quantised_while_it_is_read(
    kind: Quantization, tmp_path: Path
) -> None:
    config = Qwen2Config(
        vocab_size=tiny.VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    tiny.make(tmp_path, config)
    full = load(str(tmp_path), model_dir=tmp_path)
    small = load(str(tmp_path), model_dir=tmp_path, quantization=kind)
    linear = [part for part in small.module.modules() if isinstance(part, nn.Linear)]
    assert not linear
    ids = torch.arange(1, 40)[None]
    with torch.inference_mode():
        got, want = small.module(ids).logits, full.module(ids).logits
    assert error(got, want) < 3 * MOST_ERROR[kind]


@pytest.mark.parametrize(("kind", "ratio"), [("int8", 2.1), ("int4", 2.5)])
def test_the_starter_shrinks_and_still_answers(
    starter: LoadedModel, model_dir: Path, kind: Quantization, ratio: float
) -> None:
    small = load("smollm2-135m", model_dir=model_dir, quantization=kind)
    assert starter.memory_bytes / small.memory_bytes > ratio
    assert small.memory_bytes == weight_bytes(small.module)
    model = LanguageModel(small)
    assert small.tokenizer is not None
    answer = model.generate_ids(small.tokenizer.encode(CAPITAL), 4)
    assert starter.memory_bytes / small.memory_bytes > ratio  # as laid out for its kernels, too
    model.close()
    assert "Paris" in small.tokenizer.decode(answer)


def test_in_int4_the_embedding_and_the_linear_layers_take_what_they_must(model_dir: Path) -> None:
    module = load("smollm2-135m", model_dir=model_dir, quantization="int4").module
    embedding = module.model.embed_tokens.weight.nbytes
    head = weight_bytes(module.lm_head)
    layers = weight_bytes(module.model.layers)
    assert embedding == 49_152 * 576 * 4
    assert head == pytest.approx(49_152 * 576, rel=0.03)
    assert layers == pytest.approx(106_168_320 * 0.625, rel=0.01)
