"""The forward pass of llama-like models in few operations.

transformers' module walks through a dozen modules a layer, which costs as much as a small model's
arithmetic. Here query, key and value are one matrix product, gate and up another, a norm is one
operation and the rotation three. What differs between the families (rotation by halves or by pairs,
norms behind the blocks, biases) is read off the module. `runner_for` checks that both give the same
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine.dense_linear import DenseLinear, PackedLinear, packed_kernel_is_exact
from glm_backend.engine.kv_cache import KVCache
from glm_backend.engine.runner import RaggedRunner, Stretch, attend

Linear = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Rotation:
    """Which two numbers of a head turn together.

    swapped: each number's partner in its place, [..., dim]. laid_out: a factor for the first and
    one for the second of each pair, [..., dim / 2], as one of [..., dim].
    """

    swapped: Callable[[Tensor], Tensor]
    laid_out: Callable[[Tensor, Tensor], Tensor]


_HALVES = _Rotation(
    lambda x: x.roll(x.shape[-1] // 2, -1),
    lambda first, second: torch.cat([first, second], dim=-1),
)
_PAIRS = _Rotation(
    lambda x: x.view(*x.shape[:-1], -1, 2).flip(-1).flatten(-2),
    lambda first, second: torch.stack([first, second], dim=-1).flatten(-2),
)
#: model_type -> what turns. ChatGLM2 and ChatGLM3 are loaded as "glm".
_ROTATIONS = {
    "llama": _HALVES,
    "qwen2": _HALVES,
    "mistral": _HALVES,
    "glm": _PAIRS,
    "glm4": _PAIRS,
}


_NORMS_BEHIND = ("post_self_attn_layernorm", "post_mlp_layernorm")


@dataclass(slots=True)
class _Layer:
    """after_attention, after_mlp: norms of what a block adds, which only GLM-4-0414 has."""

    before_attention: Tensor
    query_key_value: Linear
    output: Linear
    after_attention: Tensor | None
    before_mlp: Tensor
    gate_up: Linear
    down: Linear
    after_mlp: Tensor | None


class LeanRunner(RaggedRunner):
    """Runs a llama-like model, full precision or quantised, several sequences a pass.

    It takes the module over: weights of one input are joined, and the module's own become views.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        super().__init__(module)
        config = module.config
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads or self._heads
        self._head_dim = module.model.layers[0].self_attn.head_dim
        self._eps = config.rms_norm_eps
        self._rotation = _ROTATIONS[config.model_type]
        self._layers = [_layer(layer) for layer in module.model.layers]
        self._head = _joined(module.lm_head)

    @classmethod
    def takes(cls, module: PreTrainedModel) -> bool:
        """Whether this pass knows the module's architecture."""
        config = module.config
        if config.model_type not in _ROTATIONS or config.hidden_act not in {"silu", "swish"}:
            return False
        # The trial of `runner_for` is shorter than any window.
        return getattr(config, "sliding_window", None) is None and super().takes(module)

    def pack(self) -> int:
        """Lays float32 weights out as the CPU's kernel reads them fastest, where there is one.

        The module lets its own go: from here on only this runner can compute. A head that is tied
        to the embedding is held twice from here on. Gives the bytes of the packed weights.
        """
        if self._device.type != "cpu" or not packed_kernel_is_exact():
            return 0
        for layer in self._layers:
            layer.query_key_value = _packed(layer.query_key_value)
            layer.output = _packed(layer.output)
            layer.gate_up = _packed(layer.gate_up)
            layer.down = _packed(layer.down)
        self._head = _packed(self._head)
        linears = [self._head]
        for layer in self._layers:
            linears += layer.query_key_value, layer.output, layer.gate_up, layer.down
        return sum(linear.nbytes for linear in linears if isinstance(linear, PackedLinear))

    def _pass(
        self, ids: Tensor, positions: Tensor, keep: Tensor | int, batch: Sequence[Stretch[KVCache]]
    ) -> Tensor:
        model = self._module.model
        hidden = model.embed_tokens(ids)[0]  # [tokens, hidden]
        rotary = self._angles(*model.rotary_emb(hidden, positions))
        for number, layer in enumerate(self._layers):
            x = self._norm(hidden, layer.before_attention)
            x = self._attention(number, layer, x, rotary, batch)
            hidden = hidden + self._norm(x, layer.after_attention)
            x = self._norm(hidden, layer.before_mlp)
            gate, up = layer.gate_up(x).chunk(2, dim=-1)
            hidden = hidden + self._norm(layer.down(F.silu(gate) * up), layer.after_mlp)
        if isinstance(keep, Tensor):
            hidden = hidden[keep]
        return self._head(self._norm(hidden, model.norm.weight))

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else F.rms_norm(x, x.shape[-1:], weight, self._eps)

    def _angles(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """The module's tables, [1, tokens, dim], as factors of a number and of its partner.

        Both are [tokens, 1, dim]. The tables say everything twice, for two halves.
        """
        half = cos.shape[-1] // 2
        cos, sin = cos[0, :, None, :half], sin[0, :, None, :half]
        return self._rotation.laid_out(cos, cos), self._rotation.laid_out(-sin, sin)

    def _attention(
        self,
        number: int,
        layer: _Layer,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        batch: Sequence[Stretch[KVCache]],
    ) -> Tensor:
        tokens, rotated = x.shape[0], self._heads + self._kv_heads
        heads = layer.query_key_value(x).view(tokens, -1, self._head_dim)
        turned = self._turned(heads[:, :rotated], *rotary)
        query, key, value = (
            part.transpose(0, 1)[None]  # [1, heads, tokens, head_dim]
            for part in (turned[:, : self._heads], turned[:, self._heads :], heads[:, rotated:])
        )
        attended = attend(number, query, key, value, ragged=batch, scaling=self._head_dim**-0.5)
        return layer.output(attended.reshape(tokens, -1))

    def _turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [tokens, heads, head_dim]; the numbers beyond the width of `cos` stay."""
        dim = cos.shape[-1]
        turning = x[..., :dim]
        turned = torch.addcmul(turning * cos, self._rotation.swapped(turning), sin)
        return turned if dim == x.shape[-1] else torch.cat([turned, x[..., dim:]], dim=-1)


def _layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    fused = hasattr(mlp, "gate_up_proj")
    after = [getattr(layer, name, None) for name in _NORMS_BEHIND]
    return _Layer(
        before_attention=layer.input_layernorm.weight,
        query_key_value=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        output=_joined(attention.o_proj),
        after_attention=None if after[0] is None else after[0].weight,
        before_mlp=layer.post_attention_layernorm.weight,
        gate_up=_joined(*((mlp.gate_up_proj,) if fused else (mlp.gate_proj, mlp.up_proj))),
        down=_joined(mlp.down_proj),
        after_mlp=None if after[1] is None else after[1].weight,
    )


def _joined(*parts: nn.Module) -> Linear:
    """Several linear layers of one input as one.

    Quantised layers are called one by one: their packed weights cannot be joined.
    """
    if all(type(part) is nn.Linear for part in parts):
        return DenseLinear(*parts)  # type: ignore[arg-type] # all of them are nn.Linear
    if len(parts) == 1:
        return parts[0]
    return lambda x: torch.cat([part(x) for part in parts], dim=-1)


def _packed(linear: Linear) -> Linear:
    if isinstance(linear, DenseLinear) and linear.weight.dtype is torch.float32:
        return PackedLinear(linear)
    return linear
