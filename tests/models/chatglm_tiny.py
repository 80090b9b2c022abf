"""Small ChatGLM folders with random weights in each published form, and a tokenizer.model."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.chatglm_plain import Weights

PIECES = 400
VOCAB = 448
_CORPUS = [
    "你好，世界。今天天气很好，我们去公园吧。晚上睡不着应该怎么办？",
    "The quick brown fox jumps over the lazy dog. 0123456789",
    "[Round 1]\n\n问：你好\n\n答：你好！",
    "def main():\n    print('hello')\n",
] * 30


@functools.cache
def tokenizer_model() -> bytes:
    """A SentencePiece model of the same kind as the authors' (BPE, bytes, dummy prefix)."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_CORPUS),
        model_writer=made,
        model_type="bpe",
        vocab_size=PIECES,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.98,
        minloglevel=2,
    )
    return made.getvalue()


def config(**changes: object) -> dict[str, Any]:
    """A ChatGLM2 config.json with the keys that the published ones have."""
    return {
        "_name_or_path": "THUDM/chatglm2-6b",
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "apply_residual_connection_post_layernorm": False,
        "ffn_hidden_size": 96,
        "hidden_size": 64,
        "kv_channels": 16,
        "layernorm_epsilon": 1e-5,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "num_attention_heads": 4,
        "num_layers": 2,
        "padded_vocab_size": VOCAB,
        "post_layer_norm": True,
        "rmsnorm": True,
        "seq_length": 32_768,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    } | changes


def first_config() -> dict[str, Any]:
    """The first ChatGLM-6B's."""
    return {
        "model_type": "chatglm",
        "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
        "bos_token_id": 304,
        "eos_token_id": 305,
        "gmask_token_id": 301,
        "mask_token_id": 300,
        "pad_token_id": 3,
        "hidden_size": 64,
        "inner_hidden_size": 256,
        "layernorm_epsilon": 1e-5,
        "max_sequence_length": 128,
        "num_attention_heads": 4,
        "num_layers": 2,
        "position_encoding_2d": True,
        "vocab_size": 320,
    }


def weights(values: dict[str, Any], *, seed: int = 0) -> Weights:
    """Random fp16 weights under ChatGLM2's published names."""
    random = torch.Generator().manual_seed(seed)
    hidden, ffn, dim = values["hidden_size"], values["ffn_hidden_size"], values["kv_channels"]
    heads, groups = values["num_attention_heads"], values["multi_query_group_num"]
    vocab = values["padded_vocab_size"]
    made = {"transformer.embedding.word_embeddings.weight": _random(random, vocab, hidden, std=1)}
    for number in range(values["num_layers"]):
        name = f"transformer.encoder.layers.{number}"
        rows = (heads + 2 * groups) * dim
        made |= {
            f"{name}.input_layernorm.weight": _near_one(random, hidden),
            f"{name}.self_attention.query_key_value.weight": _random(random, rows, hidden),
            f"{name}.self_attention.query_key_value.bias": _random(random, rows),
            f"{name}.self_attention.dense.weight": _random(random, hidden, heads * dim),
            f"{name}.post_attention_layernorm.weight": _near_one(random, hidden),
            f"{name}.mlp.dense_h_to_4h.weight": _random(random, 2 * ffn, hidden),
            f"{name}.mlp.dense_4h_to_h.weight": _random(random, hidden, ffn),
        }
    return made | {
        "transformer.rotary_pos_emb.inv_freq": torch.ones(dim // 4).half(),
        "transformer.encoder.final_layernorm.weight": _near_one(random, hidden),
        "transformer.output_layer.weight": _random(random, vocab, hidden, std=0.3),
    }


def first_weights(values: dict[str, Any], *, seed: int = 0) -> Weights:
    """Random fp16 weights under the first ChatGLM-6B's published names."""
    random = torch.Generator().manual_seed(seed)
    hidden, inner = values["hidden_size"], values["inner_hidden_size"]
    embedding = _random(random, values["vocab_size"], hidden, std=0.3)
    made = {"transformer.word_embeddings.weight": embedding, "lm_head.weight": embedding.clone()}
    shapes = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (inner, hidden),
        "mlp.dense_4h_to_h": (hidden, inner),
    }
    names = [f"transformer.layers.{number}" for number in range(values["num_layers"])]
    for name in names:
        made[f"{name}.attention.rotary_emb.inv_freq"] = torch.ones(4).half()
        for part, shape in shapes.items():
            made[f"{name}.{part}.weight"] = _random(random, *shape, std=3 / shape[1] ** 0.5)
            made[f"{name}.{part}.bias"] = _random(random, shape[0])
    norms = [f"{n}.{kind}_layernorm" for n in names for kind in ("input", "post_attention")]
    for norm in [*norms, "transformer.final_layernorm"]:
        made[f"{norm}.weight"] = _near_one(random, hidden)
        made[f"{norm}.bias"] = _random(random, hidden)
    return made


def quantised(plain: Weights, bits: int) -> Weights:
    """As the authors publish INT8 and INT4: the linear layers of each block, one scale a row."""
    made = dict(plain)
    for name, weight in plain.items():
        if ".layers." in name and weight.dim() == 2:
            scale = weight.abs().amax(1) / (127 if bits == 8 else 7)
            q = torch.round(weight / scale[:, None]).to(torch.int8)
            if bits == 4:
                q = (q[:, ::2] << 4) | (q[:, 1::2] & 15)
            made[name], made[f"{name}_scale"] = q, scale
    return made


def save(
    folder: Path,
    values: dict[str, Any],
    made: Weights,
    *,
    suffix: str = ".bin",
    shards: int = 1,
    tokenizer: bool = True,
) -> Path:
    """Writes config, weights (in shards with an index) and tokenizer.model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    stem = "pytorch_model" if suffix == ".bin" else "model"
    names = sorted(made)
    groups = [names[i::shards] for i in range(shards)]
    files = [f"{stem}-{i + 1:05}-of-{shards:05}{suffix}" for i in range(shards)]
    if shards == 1:
        files = [f"{stem}{suffix}"]
    else:
        index = {name: file for file, part in zip(files, groups, strict=True) for name in part}
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": index}))
    for file, part in zip(files, groups, strict=True):
        write = torch.save if suffix == ".bin" else save_file
        write({name: made[name] for name in part}, folder / file)
    if tokenizer:
        (folder / "tokenizer.model").write_bytes(tokenizer_model())
    return folder


def ids(count: int, *, below: int, seed: int = 1) -> list[int]:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(3, below, (count,), generator=random).tolist()


def _random(random: torch.Generator, *shape: int, std: float | None = None) -> Tensor:
    scale = shape[-1] ** -0.5 if std is None else std
    return (torch.randn(shape, generator=random) * scale).half()


def _near_one(random: torch.Generator, size: int) -> Tensor:
    return (1 + 0.1 * torch.randn(size, generator=random)).half()
