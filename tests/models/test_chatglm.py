"""Every published form, made on the spot, against a second and plain program."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glm_backend.engine.request import SamplingParams, Token
from glm_backend.errors import InvalidParameter, ModelUnsupported
from glm_backend.language_model import LanguageModel
from glm_backend.models.int8_kernels import TwoPartFbgemm, TwoPartOneDnn
from glm_backend.models.loader import load
from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import QuantizedLinear, WidenedLinear
from glm_backend.models.row_quantization import published_weight, quantized_by_rows
from glm_backend.native.compiled import is_possible
from tests.models import chatglm_plain as plain
from tests.models import chatglm_tiny as tiny

Forward = Callable[[list[int]], Tensor]


def opened(folder: Path, **options: Any) -> LanguageModel:
    return LanguageModel(load(str(folder), model_dir=folder, **options))


def greedy(forward: Forward, prompt: list[int], tokens: int) -> list[int]:
    answer: list[int] = []
    for _ in range(tokens):
        answer.append(int(forward(prompt + answer)[-1].argmax()))
    return answer


def holds(model: LanguageModel, forward: Forward, prompts: list[list[int]], atol: float) -> None:
    """Same logits; same greedy answers, alone and all at once."""
    for prompt in prompts:
        torch.testing.assert_close(model.logits(prompt), forward(prompt), rtol=0, atol=atol)
    expected = [greedy(forward, prompt, 12) for prompt in prompts]
    assert [model.generate_ids(p, 12, ignore_eos=True) for p in prompts] == expected
    params = SamplingParams(temperature=0, max_new_tokens=12)
    running = [model.submit(prompt, params, ignore_eos=True) for prompt in prompts]
    assert [[e.token_id for e in g.events() if isinstance(e, Token)] for g in running] == expected
    model.close()


PROMPTS = [tiny.ids(n, below=tiny.PIECES, seed=n) for n in (7, 40, 150)]


@pytest.mark.parametrize(
    ("family", "suffix", "shards", "changes"),
    [
        ("chatglm2", ".bin", 3, {}),
        ("chatglm3", ".safetensors", 2, {"seq_length": 8192}),
        ("chatglm2", ".bin", 1, {"rope_ratio": 4}),
        ("chatglm3", ".safetensors", 1, {"rope_ratio": 50}),
        ("chatglm3", ".bin", 2, {"rope_ratio": 12.5, "kv_channels": 8, "num_layers": 3}),
    ],
)
def test_chatglm2_and_chatglm3_in_full_precision(
    tmp_path: Path, family: str, suffix: str, shards: int, changes: dict[str, Any]
) -> None:
    meaning = "linear" if family == "chatglm2" else "base"
    config = tiny.config(_name_or_path=f"THUDM/{family}-6b", **changes)
    weights = tiny.weights(config)
    model = opened(tiny.save(tmp_path, config, weights, suffix=suffix, shards=shards))
    assert (model.family, model.context_length) == (family, config["seq_length"])
    floats = plain.dequantised(weights, 0)
    holds(model, lambda ids: plain.second(floats, config, ids, meaning=meaning), PROMPTS, 2e-4)


@pytest.mark.parametrize(("bits", "name"), [(4, "int4"), (8, "int8")])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_published_integers(tmp_path: Path, bits: int, name: str, suffix: str) -> None:
    config = tiny.config(quantization_bit=bits)
    weights = tiny.quantised(tiny.weights(config), bits)
    model = opened(tiny.save(tmp_path, config, weights, suffix=suffix, shards=2))
    assert model.quantization == name
    floats = plain.dequantised(weights, bits)
    holds(model, lambda ids: plain.second(floats, config, ids, meaning="linear"), PROMPTS, 1e-2)


def test_integers_take_the_memory_of_their_file(tmp_path: Path) -> None:
    config = tiny.config()
    weights = tiny.weights(config)
    sizes = {}
    for bits in (0, 8, 4):
        values = config | ({"quantization_bit": bits} if bits else {})
        stored = tiny.quantised(weights, bits) if bits else weights
        folder = tiny.save(tmp_path / str(bits), values, stored)
        sizes[bits] = load(str(folder), model_dir=folder).memory_bytes
    layers = sum(w.numel() for n, w in weights.items() if ".layers." in n and w.dim() == 2)
    assert sizes[0] - sizes[4] > layers * 3.3  # four bytes become half of one, and a scale a row
    assert sizes[0] - sizes[8] > layers * 2.7
    head = load(str(tmp_path / "4"), model_dir=tmp_path, quantization="int4")
    assert head.quantization == "int4"
    assert head.memory_bytes < sizes[4]  # asked for INT4, the head goes to INT8


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("inside", [False, True], ids=["beside the model", "among its weights"])
def test_a_trained_prefix(tmp_path: Path, projected: bool, inside: bool) -> None:
    config = tiny.config()
    weights = tiny.weights(config)
    width = config["num_layers"] * 2 * config["multi_query_group_num"] * config["kv_channels"]
    random = torch.Generator().manual_seed(5)
    table = torch.randn(6, width, generator=random)
    encoder = {"transformer.prefix_encoder.embedding.weight": table}
    if projected:
        sizes = {"trans.0.weight": (64, width), "trans.0.bias": (64,)}
        sizes |= {"trans.2.weight": (width, 64), "trans.2.bias": (width,)}
        net = {n: torch.randn(size, generator=random) / 8 for n, size in sizes.items()}
        encoder |= {f"transformer.prefix_encoder.{name}": part for name, part in net.items()}
        hidden = torch.tanh(table @ net["trans.0.weight"].T + net["trans.0.bias"])
        table = hidden @ net["trans.2.weight"].T + net["trans.2.bias"]
    parts = table.view(6, -1, config["multi_query_group_num"], config["kv_channels"])
    prefix = [(parts[:, 2 * i], parts[:, 2 * i + 1]) for i in range(config["num_layers"])]
    if inside:
        model = opened(tiny.save(tmp_path, config, weights | encoder))
    else:
        tiny.save(tmp_path / "prefix", config, encoder)
        folder = tiny.save(tmp_path / "model", config, weights)
        model = opened(folder, ptuning=tmp_path / "prefix")
    floats = plain.dequantised(weights, 0)
    holds(
        model,
        lambda ids: plain.second(floats, config, ids, meaning="linear", prefix=prefix),
        PROMPTS,
        2e-4,
    )


def test_the_first_generation(tmp_path: Path) -> None:
    config = tiny.first_config()
    weights = tiny.first_weights(config)
    model = opened(tiny.save(tmp_path, config, weights, shards=2, tokenizer=False))
    assert (model.family, model.context_length, model.tokenizer) == ("chatglm", 128, None)
    with pytest.raises(ModelUnsupported, match=r"ice_text\.model"):
        model.complete([{"role": "user", "content": "hi"}], SamplingParams())
    floats = plain.dequantised(weights, 0)
    prompts = [
        [*tiny.ids(20, below=290), 301, 304],  # [gMASK] <sop>
        [*tiny.ids(90, below=290, seed=2), 301, 304],  # longer than one portion of a prompt
        [*tiny.ids(5, below=290), 300, *tiny.ids(9, below=290), 304],  # [MASK] in the middle
    ]
    holds(model, lambda ids: plain.first(floats, config, ids), prompts, 2e-4)


@pytest.mark.parametrize("bits", [4, 8])
def test_the_first_generation_in_published_integers(tmp_path: Path, bits: int) -> None:
    config = tiny.first_config() | {"quantization_bit": bits}
    weights = tiny.quantised(tiny.first_weights(config), bits)
    model = opened(tiny.save(tmp_path, config, weights, tokenizer=False))
    floats = plain.dequantised(weights, bits)
    prompt = [*tiny.ids(20, below=290), 301, 304]
    torch.testing.assert_close(
        model.logits(prompt), plain.first(floats, config, prompt), rtol=0, atol=2e-2
    )
    model.close()


def test_the_first_generation_needs_to_know_where_an_answer_begins(tmp_path: Path) -> None:
    config = tiny.first_config()
    model = opened(tiny.save(tmp_path, config, tiny.first_weights(config), tokenizer=False))
    for prompt in ([5, 6, 7], [5, 301], [5, 304]):
        with pytest.raises(InvalidParameter, match="gMASK"):
            model.generate_ids(prompt)
        with pytest.raises(InvalidParameter, match="gMASK"):
            model.logits(prompt)
    model.close()


# --- which of the family it is


def recognised(folder: Path, config: dict[str, Any], **options: Any) -> tuple[str, str]:
    tiny.save(folder, config, tiny.weights(config), tokenizer=False)
    model = load(str(folder), model_dir=folder, **options)
    return model.family, model.recognised


def nameless(**changes: object) -> dict[str, Any]:
    config = tiny.config(**changes)
    del config["_name_or_path"]
    return config


def test_the_strongest_clue_decides_and_is_named(tmp_path: Path) -> None:
    config = nameless(rope_ratio=8)
    assert recognised(tmp_path / "my-chatglm3-6b-32k", config) == (
        "chatglm3",
        "the folder's name says so",
    )
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text('{"name_or_path": "THUDM/chatglm3-6b-base"}')
    assert recognised(folder, config) == ("chatglm3", "tokenizer_config.json says so")
    config["_name_or_path"] = "THUDM/chatglm2-6b-32k"
    family, why = recognised(folder, config)
    assert family == "chatglm2"
    assert why == "config.json says so (though tokenizer_config.json speaks for another)"
    (folder / "modeling_chatglm.py").write_text("raise SystemExit\nbase = base * self.rope_ratio\n")
    family, why = recognised(folder, config)
    assert family == "chatglm3"
    assert "modeling_chatglm.py (read as text)" in why
    (folder / "modeling_chatglm.py").write_text("seq_idx = seq_idx / self.rope_ratio\n")
    assert recognised(folder, config)[0] == "chatglm2"
    assert recognised(folder, config, family="chatglm3") == ("chatglm3", "it was said on loading")


def test_where_a_guess_would_change_the_numbers_there_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(ModelUnsupported, match='family="chatglm2"'):
        recognised(folder, nameless(rope_ratio=8))
    family, why = recognised(folder, nameless())
    assert family == "chatglm2"
    assert "nothing else tells it" in why
    assert "family=" in why
    assert recognised(folder, nameless(seq_length=8192))[0] == "chatglm3"


def test_a_family_that_cannot_be_is_refused(tmp_path: Path) -> None:
    config = tiny.config()
    for family in ("chatglm", "llama", "no-such"):
        with pytest.raises(ModelUnsupported, match="it cannot be"):
            recognised(tmp_path, config, family=family)
    first = tiny.first_config()
    tiny.save(tmp_path / "first", first, tiny.first_weights(first), tokenizer=False)
    with pytest.raises(ModelUnsupported, match="the first ChatGLM-6B"):
        load(str(tmp_path / "first"), model_dir=tmp_path, family="chatglm3")


def test_glm4_in_its_older_form_is_told_from_chatglm(tmp_path: Path) -> None:
    for config in (tiny.config(_name_or_path="THUDM/glm-4-9b-chat"), nameless()):
        tiny.save(tmp_path, config, tiny.weights(config), tokenizer=False)
        if "_name_or_path" not in config:
            values = config | {"padded_vocab_size": 151_552}
            (tmp_path / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelUnsupported, match="-hf"):
            load(str(tmp_path), model_dir=tmp_path)


# --- the authors' quantisation


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [96, 2048])
def test_the_authors_quantisation_and_every_layer_that_computes_with_it(
    bits: Any, columns: int
) -> None:
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(48, columns, generator=random).half()
    weight[3] = 0  # a row that has no scale
    q, scale = quantized_by_rows(weight, bits)
    expected_scale = weight.float().abs().amax(1) / (7 if bits == 4 else 127)
    assert torch.equal(scale, expected_scale.half())
    held = published_weight(q, scale, bits)
    error = (held.dense(slice(None)) - weight.float()).abs()
    # half a step, and the rounding of its own scale
    assert (error / expected_scale.clamp(min=1e-6)[:, None]).max() < 0.55
    bias, x = torch.randn(48, generator=random), torch.randn(5, columns, generator=random)
    expected = x @ held.dense(slice(None)).T + bias
    kernel = held.kernel(bias)
    layers = [WidenedLinear(held, bias), QuantizedLinear(held, bias).packed()]
    if held.has_native:
        layers.append(NativeKernel(held, bias))
    large = columns == 2048 and is_possible()
    usual = (TwoPartFbgemm, TwoPartOneDnn) if bits == 8 else ()
    if kernel is None:
        assert not usual
        assert not large
    else:
        assert isinstance(kernel, (*usual, NativeKernel) if large else usual)
        layers.append(kernel)
    for layer in layers:
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=2e-3 * (columns / 96) ** 0.5)
        assert layer(x.bfloat16()[None]).dtype is torch.bfloat16
        assert torch.equal(layer(x[2:3]), layer(x)[2:3]) or isinstance(layer, WidenedLinear)
    part = held.part(slice(2, 4))
    assert torch.equal(part.dense(slice(None)), held.dense(slice(2, 4)))


def test_published_int4_runs_in_half_precision_too(tmp_path: Path) -> None:
    config = tiny.config(quantization_bit=4)
    weights = tiny.quantised(tiny.weights(config), 4)
    tiny.save(tmp_path, config, weights)
    language = LanguageModel(load(str(tmp_path), model_dir=tmp_path, dtype="bfloat16"))
    floats = plain.dequantised(weights, 4)
    expected = plain.second(floats, config, PROMPTS[0], meaning="linear")
    difference = (language.logits(PROMPTS[0]) - expected).abs().max()
    assert difference < 0.05 * expected.abs().max()
    language.close()
