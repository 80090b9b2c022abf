"""ChatGLM written down a second time, plainly: one sequence, no cache, published weights.

Straight from the description of the authors' programs, without transformers, so that tests compare
two programs that share nothing. Slow, and meant to be read.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
Prefix = list[tuple[Tensor, Tensor]]  # keys and values of each layer, [rows, groups, head_dim]


def dequantised(weights: Weights, bits: int) -> Weights:
    """Published integers as the numbers that they stand for."""
    plain = {name: tensor.float() for name, tensor in weights.items()}
    for name in [name for name in weights if name.endswith("_scale")]:
        stored, scale = weights[name.removesuffix("_scale")], plain.pop(name)
        values = stored
        if bits == 4:  # even column in the upper half of the byte, two's complement
            pairs = [((byte >> 4) & 15, byte & 15) for byte in stored.int().flatten().tolist()]
            nibbles = torch.tensor([n - 16 if n > 7 else n for pair in pairs for n in pair])
            values = nibbles.view(len(stored), -1)
        plain[name.removesuffix("_scale")] = values.float() * scale[:, None]
    return plain


def second(
    weights: Weights, config: dict[str, Any], ids: list[int], *, meaning: str, prefix: Prefix = ()
) -> Tensor:
    """ChatGLM2 and ChatGLM3: logits [tokens, vocab]. meaning: of rope_ratio, "linear" or "base"."""
    x = weights["transformer.embedding.word_embeddings.weight"][torch.tensor(ids)]
    ratio, eps = config.get("rope_ratio", 1), config["layernorm_epsilon"]
    places = torch.arange(len(ids)) / (ratio if meaning == "linear" else 1)
    base = 10_000.0 * (ratio if meaning == "base" else 1)
    for number in range(config["num_layers"]):
        name = f"transformer.encoder.layers.{number}"
        normed = rms_norm(x, weights[f"{name}.input_layernorm.weight"], eps)
        before = prefix[number] if prefix else None
        attended = _grouped_attention(
            weights, config, name, normed, places=places, base=base, prefix=before
        )
        x = x + attended @ weights[f"{name}.self_attention.dense.weight"].T
        normed = rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"], eps)
        gate, up = (normed @ weights[f"{name}.mlp.dense_h_to_4h.weight"].T).chunk(2, -1)
        x = x + (F.silu(gate) * up) @ weights[f"{name}.mlp.dense_4h_to_h.weight"].T
    x = rms_norm(x, weights["transformer.encoder.final_layernorm.weight"], eps)
    return x @ weights["transformer.output_layer.weight"].T


def _grouped_attention(
    weights: Weights,
    config: dict[str, Any],
    name: str,
    x: Tensor,
    *,
    places: Tensor,
    base: float,
    prefix: tuple[Tensor, Tensor] | None,
) -> Tensor:
    heads, groups = config["num_attention_heads"], config["multi_query_group_num"]
    dim, tokens = config["kv_channels"], len(x)
    fused = x @ weights[f"{name}.self_attention.query_key_value.weight"].T
    fused = fused + weights[f"{name}.self_attention.query_key_value.bias"]
    query, key, value = fused.split([heads * dim, groups * dim, groups * dim], -1)
    query = rotated_pairs(query.view(tokens, heads, dim), places, base)
    key = rotated_pairs(key.view(tokens, groups, dim), places, base)
    value = value.view(tokens, groups, dim)
    before = 0
    if prefix is not None:
        before = len(prefix[0])
        key, value = torch.cat([prefix[0], key]), torch.cat([prefix[1], value])
    hidden = torch.ones(tokens, before + tokens).tril(before) == 0
    return attention(query, key, value, hidden)


def first(weights: Weights, config: dict[str, Any], ids: list[int]) -> Tensor:
    """The first ChatGLM-6B: logits [tokens, vocab]; `ids` has [gMASK] or [MASK], and <sop>."""
    begin = ids.index(config["bos_token_id"])
    masks = [config["gmask_token_id"], config["mask_token_id"]]
    answer_at = next(ids.index(mask) for mask in masks if mask in ids)
    count = len(ids)
    places = torch.tensor([i if i < begin else answer_at for i in range(count)])
    in_answer = torch.tensor([max(0, i - begin + 1) for i in range(count)])
    hidden = torch.ones(count, count).tril() == 0
    hidden[:, :begin] = False
    x = weights["transformer.word_embeddings.weight"][torch.tensor(ids)]
    alpha = 56**0.5  # twice the 28 layers of the published model, in every model
    for number in range(config["num_layers"]):
        name = f"transformer.layers.{number}"
        x = _layer_norm(weights, config, f"{name}.input_layernorm", x)
        dim = config["hidden_size"] // config["num_attention_heads"]
        fused = _linear(weights, f"{name}.attention.query_key_value", x).view(count, -1, 3 * dim)
        query, key, value = fused.split(dim, -1)
        query, key = (_rotated_twice(part, places, in_answer) for part in (query, key))
        attended = attention(query, key, value, hidden)
        x = x * alpha + _linear(weights, f"{name}.attention.dense", attended)
        x = _layer_norm(weights, config, f"{name}.post_attention_layernorm", x)
        wide = F.gelu(_linear(weights, f"{name}.mlp.dense_h_to_4h", x), approximate="tanh")
        x = x * alpha + _linear(weights, f"{name}.mlp.dense_4h_to_h", wide)
    x = _layer_norm(weights, config, "transformer.final_layernorm", x)
    return x @ weights["transformer.word_embeddings.weight"].T


def attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    """query [tokens, heads, dim], key and value [rows, groups, dim] -> [tokens, heads * dim]."""
    share = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(share, 1) for part in (key, value))
    scores = torch.einsum("ihd,jhd->hij", query, key) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, value).flatten(1)


def rotated_pairs(x: Tensor, places: Tensor, base: float) -> Tensor:
    """RoPE on neighbouring pairs of the first half of each head; x: [tokens, heads, dim]."""
    half = x.shape[-1] // 2
    angle = places[:, None] / base ** (torch.arange(0, half, 2) / half)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    even, odd = x[..., 0:half:2], x[..., 1:half:2]
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2)
    return torch.cat([turned, x[..., half:]], -1)


def _rotated_twice(x: Tensor, places: Tensor, in_answer: Tensor) -> Tensor:
    """RoPE on the two halves of a head, each by its own place; pairs are half a half apart."""
    parts = []
    for part, place in zip(x.chunk(2, -1), (places, in_answer), strict=True):
        width = part.shape[-1]
        frequency = (1.0 / 10_000 ** (torch.arange(0, width, 2) / width)).half().float()
        angle = (place[:, None] * frequency)[:, None]
        low, high = part.chunk(2, -1)
        cos, sin = angle.cos(), angle.sin()
        parts += [low * cos - high * sin, high * cos + low * sin]
    return torch.cat(parts, -1)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def _layer_norm(weights: Weights, config: dict[str, Any], name: str, x: Tensor) -> Tensor:
    shape, eps = (config["hidden_size"],), config["layernorm_epsilon"]
    return F.layer_norm(x, shape, weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
