"""INT8 and INT4: how far from full precision, how small, and the same in any company."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import Qwen2Config

from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel, Quantization
from glm_backend.models.quantization import (
    PortableInt4Linear,
    PortableInt8Linear,
    groupwise_int4,
    int4_kernel_is_exact,
    int8_kernel_is_exact,
    quantized_linear,
    rowwise_int8,
    weight_bytes,
)
from tests.models import tiny

BOTH: tuple[Quantization, ...] = ("int8", "int4")
#: Relative error of one layer on random weights, the most that is accepted.
MOST_ERROR = {"int8": 0.02, "int4": 0.12}
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Target:
    quantization: Quantization
    dtype: torch.dtype = torch.float32
    device: torch.device = CPU


def weight(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 0.02


def activations(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def error(got: Tensor, want: Tensor) -> float:
    return float((got.float() - want).norm() / want.norm())


def portable(kind: Quantization, w: Tensor, bias: Tensor | None) -> nn.Module:
    if kind == "int8":
        return PortableInt8Linear(*rowwise_int8(w), bias)
    columns = w.shape[1]
    q, scale_zero = groupwise_int4(nn.functional.pad(w, (0, -columns % 32)))
    return PortableInt4Linear(q, scale_zero, bias, columns)


def test_the_fast_kernels_run_here_or_say_that_they_do_not() -> None:
    kinds = [type(quantized_linear(weight(64, 64), None, Target(q))).__name__ for q in BOTH]
    fast = ["OneDnnInt8Linear", "PackedInt4Linear"]
    slow = ["PortableInt8Linear", "PortableInt4Linear"]
    exact = [int8_kernel_is_exact(), int4_kernel_is_exact()]
    assert kinds == [f if ok else s for f, s, ok in zip(fast, slow, exact, strict=True)]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("shape", [(64, 576), (1536, 576), (48, 100), (33, 48), (8, 16)], ids=str)
@pytest.mark.parametrize("make", [quantized_linear, None], ids=["kernel", "portable"])
def test_a_layer_stays_close_to_full_precision(
    kind: Quantization, shape: tuple[int, int], make: object
) -> None:
    w, bias, x = weight(*shape), activations(shape[0]), activations(2, 5, shape[1])
    want = nn.functional.linear(x, w, bias)
    layer = quantized_linear(w, bias, Target(kind)) if make else portable(kind, w, bias)
    got = layer(x)
    assert got.shape == want.shape
    assert got.dtype == x.dtype
    assert error(got - bias, want - bias) < MOST_ERROR[kind]


@pytest.mark.parametrize("kind", BOTH)
def test_half_precision_activations_come_back_in_their_type(kind: Quantization) -> None:
    w, x = weight(64, 64), activations(3, 64)
    for dtype in (torch.bfloat16, torch.float16):
        for layer in (quantized_linear(w, None, Target(kind)), portable(kind, w, None)):
            got = layer(x.to(dtype))
            assert got.dtype == dtype
            assert error(got, x @ w.T) < MOST_ERROR[kind] + 0.01


def test_an_int8_row_is_the_same_alone_and_in_company() -> None:
    layer = quantized_linear(weight(576, 1536), None, Target("int8"))
    x = activations(16, 1536) * torch.logspace(-3, 3, 16)[:, None]
    together = layer(x)
    for row in range(16):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])


@pytest.mark.parametrize("kind", BOTH)
def test_zero_rows_and_zero_weights_are_no_trouble(kind: Quantization) -> None:
    layer = quantized_linear(torch.zeros(16, 64), None, Target(kind))
    assert torch.equal(layer(torch.zeros(2, 64)), torch.zeros(2, 16))
    assert layer(torch.zeros(0, 64)).shape == (0, 16)


def test_int4_keeps_values_that_are_four_bits_already() -> None:
    """Q4_1 weights, as the starter's are, lose next to nothing a second time."""
    levels = torch.arange(16.0).repeat(64 * 9 * 2).view(64 * 9, 32)
    w = (levels * 0.0123 - weight(64 * 9, 1).abs()).view(64, 9 * 32)
    layer = portable("int4", w, None)
    assert isinstance(layer, PortableInt4Linear)
    assert error(layer.weight(torch.float32), w) < 0.01


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
    assert not any(type(part) is nn.Linear for part in small.module.modules())
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
    prompt = torch.tensor([small.prompt_ids(CAPITAL)])
    with torch.inference_mode():
        out = small.module.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
        )
    assert small.tokenizer is not None
    assert "Paris" in small.tokenizer.decode(out[0, prompt.shape[1] :].tolist())


def test_in_int4_the_embedding_and_the_linear_layers_take_what_they_must(model_dir: Path) -> None:
    module = load("smollm2-135m", model_dir=model_dir, quantization="int4").module
    embedding = module.model.embed_tokens.weight.nbytes
    head = weight_bytes(module.lm_head)
    layers = weight_bytes(module.model.layers)
    assert embedding == 49_152 * 576 * 4
    assert head == pytest.approx(49_152 * 576, rel=0.03)
    assert layers == pytest.approx(106_168_320 * 0.625, rel=0.01)
