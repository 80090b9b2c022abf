"""What the passes of llama-like models read off a module of transformers.

The families differ in how a head turns (numbers side by side, or half a head apart), in norms
behind the blocks, in biases, and in which matrices are one already.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

#: What a pass has in the place of linear layers.
L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)

#: How two numbers of a head turn together: side by side, or half a head apart.
PAIRS, HALVES = "pairs", "halves"
#: ChatGLM2 and ChatGLM3 are loaded as "glm".
_ROTATIONS = {
    "llama": HALVES,
    "qwen2": HALVES,
    "mistral": HALVES,
    "glm": PAIRS,
    "glm4": PAIRS,
}
#: Positions whose tables are made at a time: those of 32,768 would take tens of megabytes more.
_TURNED_AT_ONCE = 1024
_NORMS_BEHIND = ("post_self_attn_layernorm", "post_mlp_layernorm")


class Packing(Protocol[L_co]):
    """Gives linear layers of one input as one product, as a pass wants it.

    order: the rows of all in the order in which they are wanted.
    """

    def packed(self, *parts: nn.Module, order: Tensor | None = None) -> L_co: ...


@dataclass(frozen=True, slots=True)
class Layer(Generic[L]):
    """before_attention, before_mlp: norms of what a block reads; None for one without weights.
    after_attention, after_mlp: norms of what a block adds, which only GLM-4-0414 has."""

    before_attention: Tensor | None
    query_key_value: L
    output: L
    after_attention: Tensor | None
    before_mlp: Tensor | None
    gate_up: L
    down: L
    after_mlp: Tensor | None


def is_known(module: PreTrainedModel) -> bool:
    """Whether the architecture is one of these."""
    config = module.config
    if config.model_type not in _ROTATIONS or config.hidden_act not in {"silu", "swish"}:
        return False
    # The trial of `runner_for` is shorter than any window.
    return getattr(config, "sliding_window", None) is None


def rotation(module: PreTrainedModel) -> str:
    """PAIRS or HALVES."""
    return _ROTATIONS[module.config.model_type]


def head_counts(module: PreTrainedModel) -> tuple[int, int, int]:
    """Query heads, key heads, and the numbers of one."""
    config = module.config
    heads = config.num_attention_heads
    dim: int = module.model.layers[0].self_attn.head_dim
    return heads, config.num_key_value_heads or heads, dim


def small_twin(module: PreTrainedModel, head_dim: int = 16) -> PreTrainedModel:
    """A module of the same architecture in every respect but its size, with random weights."""
    config = copy.deepcopy(module.config)
    groups = min(2, config.num_key_value_heads or 2)
    small = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2 * groups,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "vocab_size": 64,
        "pad_token_id": None,
        # With the usual 0.02 a token sees little of the others: a wrong rotation would pass.
        "initializer_range": 0.1,
    }
    for name, value in small.items():
        setattr(config, name, value)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        twin = type(module)(config)
    twin.train(False)
    return twin


def turns_of(module: PreTrainedModel, positions: int, device: torch.device) -> Tensor:
    """How far the pairs of a head turn at each position: complex [positions, head_dim / 2].

    The module's own tables; pairs that it does not turn are turned by nothing.
    """
    half = head_counts(module)[2] // 2
    turns = torch.ones(positions, half, dtype=torch.complex64, device=device)
    with torch.inference_mode():
        for places in torch.split(torch.arange(positions, device=device), _TURNED_AT_ONCE):
            cos, sin = module.model.rotary_emb(torch.zeros((), device=device), places[None])
            # The tables say everything twice, for two halves.
            turning = cos.shape[-1] // 2
            turns[places, :turning] = torch.complex(cos[0, :, :turning], sin[0, :, :turning])
    return turns


def unless_ones(weight: Tensor) -> Tensor | None:
    """The weight of a norm; None where its work was given to the matrices behind it."""
    return None if bool((weight == 1).all()) else weight


def layer_of(layer: Any, packing: Packing[L], order: Tensor | None) -> Layer[L]:
    """order: of the rows of query, key and value; None as they are."""
    attention, mlp = layer.self_attn, layer.mlp
    after = [getattr(layer, name, None) for name in _NORMS_BEHIND]
    inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
    fused = hasattr(mlp, "gate_up_proj")
    return Layer(
        before_attention=unless_ones(layer.input_layernorm.weight),
        query_key_value=packing.packed(*inputs, order=order),
        output=packing.packed(attention.o_proj),
        after_attention=None if after[0] is None else after[0].weight,
        before_mlp=unless_ones(layer.post_attention_layernorm.weight),
        gate_up=packing.packed(*((mlp.gate_up_proj,) if fused else (mlp.gate_proj, mlp.up_proj))),
        down=packing.packed(mlp.down_proj),
        after_mlp=None if after[1] is None else after[1].weight,
    )


def half_order(module: PreTrainedModel) -> Tensor | None:
    """The rows of query, key and value with the two numbers of a pair half a head apart.

    Where they stand side by side: queries and keys are laid out alike, so no product of them
    notices. None where they stand so already.
    """
    if rotation(module) != PAIRS:
        return None
    heads, kv_heads, dim = head_counts(module)
    turning = (heads + kv_heads) * dim
    rows = torch.arange(turning).view(-1, dim // 2, 2).transpose(1, 2).flatten()
    return torch.cat([rows, torch.arange(turning, turning + kv_heads * dim)])


def quantised_twin(module: PreTrainedModel, head_dim: int, linear: Any) -> PreTrainedModel:
    """A small twin whose linear layers are of the kind of `linear`."""
    twin = small_twin(module, head_dim)
    for name, part in list(twin.named_modules()):
        if type(part) is nn.Linear:
            weight = linear.weight.like(part.weight.detach())
            twin.set_submodule(name, type(linear)(weight, part._parameters["bias"]))
    return twin
