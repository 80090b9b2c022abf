"""The Llama family's forward pass in few operations: what decoding one token at a time is made of.

transformers' module walks through a dozen modules a layer, which costs as much as a small model's
arithmetic. Here query, key and value are one matrix product, gate and up another, and the norm is
one operation. The module stays whole: its own weights become views of the joined ones, so nothing
is held twice and it still answers by itself. `runner_for` checks that both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel

from glm_backend.engine.kv_cache import KVCache
from glm_backend.engine.runner import RaggedRunner, Stretch, attend

Linear = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class _Layer:
    attention_norm: Tensor
    query_key_value: Linear
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class LeanRunner(RaggedRunner):
    """Runs a Llama model, full precision or quantised, several sequences a pass."""

    def __init__(self, module: PreTrainedModel) -> None:
        super().__init__(module)
        assert isinstance(module, LlamaForCausalLM)
        config, model = module.config, module.model
        self._head_dim = model.layers[0].self_attn.head_dim
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads or config.num_attention_heads
        self._eps = config.rms_norm_eps
        self._layers = [
            _Layer(
                layer.input_layernorm.weight,
                _joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                layer.self_attn.o_proj,
                layer.post_attention_layernorm.weight,
                _joined(layer.mlp.gate_proj, layer.mlp.up_proj),
                layer.mlp.down_proj,
            )
            for layer in model.layers
        ]

    @staticmethod
    def takes(module: PreTrainedModel) -> bool:
        """Whether this pass knows the module's architecture."""
        return type(module) is LlamaForCausalLM and module.config.hidden_act == "silu"

    def _pass(
        self, ids: Tensor, positions: Tensor, keep: Tensor | int, batch: Sequence[Stretch[KVCache]]
    ) -> Tensor:
        model = self._module.model
        hidden = model.embed_tokens(ids)[0]  # [tokens, hidden]
        cos, sin = model.rotary_emb(hidden, positions)
        rotary = cos[0, :, None], sin[0, :, None]  # [tokens, 1, head_dim]
        for number, layer in enumerate(self._layers):
            x = F.rms_norm(hidden, hidden.shape[-1:], layer.attention_norm, self._eps)
            hidden = hidden + self._attention(number, layer, x, rotary, batch)
            x = F.rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm, self._eps)
            gate, up = layer.gate_up(x).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        if isinstance(keep, Tensor):
            hidden = hidden[keep]
        logits: Tensor = self._module.lm_head(model.norm(hidden))
        return logits

    def _attention(
        self,
        number: int,
        layer: _Layer,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        batch: Sequence[Stretch[KVCache]],
    ) -> Tensor:
        (cos, sin), tokens = rotary, x.shape[0]
        rotated = self._heads + self._kv_heads
        heads = layer.query_key_value(x).view(tokens, -1, self._head_dim)
        turned = heads[:, :rotated]
        first, second = turned.chunk(2, dim=-1)
        turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
        query, key, value = (
            part.transpose(0, 1)[None]  # [1, heads, tokens, head_dim]
            for part in (turned[:, : self._heads], turned[:, self._heads :], heads[:, rotated:])
        )
        attended = attend(number, query, key, value, ragged=batch, scaling=self._head_dim**-0.5)
        return layer.output(attended.reshape(tokens, -1))


def _joined(*parts: nn.Module) -> Linear:
    """Several linear layers of one input as one; their weights become views of the joined weight.

    Quantised layers are called one by one: their packed weights cannot be joined.
    """
    linears = [part for part in parts if type(part) is nn.Linear]
    if len(linears) < len(parts) or any(linear.bias is not None for linear in linears):
        return lambda x: torch.cat([part(x) for part in parts], dim=-1)
    with torch.no_grad():
        weight = torch.cat([linear.weight for linear in linears])
        heights = [linear.out_features for linear in linears]
        for linear, rows in zip(linears, torch.split(weight, heights), strict=True):
            linear.weight.data = rows
    return lambda x: F.linear(x, weight)
