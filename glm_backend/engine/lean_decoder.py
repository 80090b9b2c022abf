"""The forward pass of llama-like models in few operations.

transformers' module walks through a dozen modules a layer, which costs as much as a small model's
arithmetic. Here query, key and value are one matrix product, gate and up another, and the rotation
is one product of complex numbers, in the manner of gpt-fast
(https://github.com/pytorch-labs/gpt-fast). What differs between the families (rotation by halves or
by pairs, norms behind the blocks, biases) is read off the module. `runner_for` checks that both
give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine.batch import Batch, Stretch
from glm_backend.engine.captured_pass import CapturedPass, cuda_graphs
from glm_backend.engine.dense_linear import DenseLinear, PackedLinear, packed_kernel_is_exact
from glm_backend.engine.llama_like import (
    HALVES,
    Layer,
    head_counts,
    is_known,
    layer_of,
    rotation,
    small_twin,
    turns_of,
    unless_ones,
)
from glm_backend.engine.recorded_pass import Attention, Recording
from glm_backend.engine.runner import Parts, RaggedRunner, finished, gives, trial

Linear = Callable[[Tensor], Tensor]


class Quantised(Protocol):
    """A layer with weights in few bits, which has a faster form."""

    def packed(self, *others: Any, order: Tensor | None = None) -> Any:
        """One in the place of this layer and of `others`, which take the same input.

        They let go of their weights. order: the rows of all in the order in which they are wanted.
        What is given has `multiply`, for [rows, in], and `nbytes`.
        """
        ...


class LeanRunner(RaggedRunner):
    """Runs a llama-like model, full precision or quantised, several sequences a pass.

    It takes the module over: from here on only this runner can compute. A head that is tied to the
    embedding is held twice. Layers may lie on several devices, all else on that of the embedding.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        super().__init__(module)
        config = module.config
        _, self._kv_heads, self._head_dim = head_counts(module)
        self._eps = torch.tensor(config.rms_norm_eps)
        self._turns = turns_of(module, config.max_position_embeddings, self._device)
        packing = _Packing()
        order = _pair_order(module)
        self._devices = [layer.input_layernorm.weight.device for layer in module.model.layers]
        self._layers = [layer_of(layer, packing, order) for layer in module.model.layers]
        self.parts = len(self._layers)
        self._last_norm = unless_ones(module.model.norm.weight)
        self._head = packing.packed(module.lm_head)
        self.held_bytes = packing.held_bytes
        self.kernels = frozenset(packing.kernels)
        self._least_rows = packing.least_rows
        self._replay = self._replayed()

    @classmethod
    def takes(cls, module: PreTrainedModel) -> bool:
        """Whether this pass knows the module's architecture."""
        return is_known(module) and super().takes(module)

    @classmethod
    def fits(cls, module: PreTrainedModel) -> bool:
        """Whether this pass gives the numbers of the module, tried on a small twin of it."""
        if not cls.takes(module):
            return False
        twin = small_twin(module)
        expected = trial(twin)
        return gives(cls(twin), twin.dtype, expected)

    def open(self, slots: int, tokens: int) -> None:
        super().open(slots, tokens)
        # A recording is made when it is first played: not while somebody waits for the next word.
        # (Graphs of a GPU are too many for that.)
        self.forward([Stretch(0, 0, [0], scored=0)])
        self.forward([Stretch(0, 1, [0], answering=True)])
        self.clear(0)

    @torch.inference_mode()
    def read(self, batch: Sequence[Stretch]) -> Parts:
        step = Batch(batch, self._cache, self._device)
        hidden, turns, scored = self._input(step)
        logits = yield from self._layer_by_layer(hidden, turns, step, scored)
        return logits[: len(step.scored)].float().cpu()

    def _pass(self, batch: Batch) -> Tensor:
        hidden, turns, scored = self._input(batch)
        logits = self._replay.play(self._through, hidden, turns, scored, batch)
        if logits is None:
            logits = self._through(hidden, turns, batch, scored)
        return logits[: len(batch.scored)]

    def _input(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """What a pass begins with.

        Embeddings [rows, hidden size], how their heads turn [tokens, 1, head_dim / 2] and the
        scored places, none or as many at least as a matrix must have.
        """
        if batch.length > len(self._turns):
            self._turns = turns_of(self._module, batch.length, self._device)
        model = self._module.model
        hidden = F.embedding(batch.ids, model.embed_tokens.weight).to(self._module.dtype)
        if len(hidden) < self._least_rows:
            hidden = hidden.expand(self._least_rows, -1).contiguous()
        scored = batch.scored
        if len(scored) == 1:
            scored = scored.expand(self._least_rows)
        return hidden, self._turns[batch.positions][:, None], scored

    def _through(
        self, hidden: Tensor, turns: Tensor, attention: Attention, scored: Tensor
    ) -> Tensor:
        """All layers. Also recorded: sizes are asked of tensors by `shape`, never by `len`."""
        return finished(self._layer_by_layer(hidden, turns, attention, scored))

    def _layer_by_layer(
        self, hidden: Tensor, turns: Tensor, attention: Attention, scored: Tensor
    ) -> Parts:
        for number, layer in enumerate(self._layers):
            if self._devices[number] != hidden.device:  # of several GPUs the next one
                hidden, turns = (part.to(self._devices[number]) for part in (hidden, turns))
            x = self._norm(hidden, layer.before_attention)
            x = self._attention(number, layer, x, turns, attention)
            hidden += x if layer.after_attention is None else self._norm(x, layer.after_attention)
            x = self._norm(hidden, layer.before_mlp)
            gate, up = layer.gate_up(x).chunk(2, dim=-1)
            x = layer.down(F.silu(gate).mul_(up))
            hidden += x if layer.after_mlp is None else self._norm(x, layer.after_mlp)
            yield
        if not scored.shape[0]:
            return hidden.new_empty(0, 0)
        last = hidden[scored] if hidden.device == self._device else hidden.to(self._device)[scored]
        return self._head(self._norm(last, self._last_norm))

    def _replayed(self) -> Recording | CapturedPass:
        """What plays steps without a prompt, where it can."""
        if self._device.type == "cuda" and {*self._devices} == {self._device}:
            return CapturedPass(cuda_graphs(self._device))
        return Recording([self._eps, self._last_norm, *self._weights()])

    def _weights(self) -> Iterator[object]:
        """All that `_through` reads: linear layers and the weights of norms."""
        for layer in self._layers:
            yield from (getattr(layer, field.name) for field in fields(layer))
        yield self._head

    def _norm(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """Root mean square norm (Zhang and Sennrich 2019), [rows, hidden]."""
        if x.dtype is not torch.float32 or x.device.type != "cpu":
            return F.rms_norm(x, x.shape[-1:], weight, self._module.config.rms_norm_eps)
        # torch's own is five operations for CPUs; here is one less.
        length = torch.linalg.vector_norm(x, 2.0, 1, True)
        scale = torch.addcmul(self._eps, length, length, value=1 / x.shape[1]).rsqrt_()
        scaled = x * scale
        return scaled if weight is None else scaled.mul_(weight)

    def _attention(
        self, number: int, layer: Layer[Linear], x: Tensor, turns: Tensor, attention: Attention
    ) -> Tensor:
        heads, kv_heads = layer.query_key_value(x), self._kv_heads
        if self._least_rows > 1:  # some may only fill up
            heads = heads[: turns.shape[0]]
        heads = self._turned(torch.unflatten(heads, 1, (-1, self._head_dim)), turns)
        attended = attention.attend_fused(number, heads, kv_heads, self._head_dim**-0.5)
        attended = attended.flatten(1)
        if self._least_rows > 1:
            attended = attended.expand(x.shape[0], -1)
        return layer.output(attended)

    def _turned(self, heads: Tensor, turns: Tensor) -> Tensor:
        """Rotary embedding (Su et al. 2021) of queries and keys: [tokens, heads, head_dim].

        The two numbers of a pair, which stand side by side here, are one complex number.
        """
        wide = heads.float()
        numbers = torch.view_as_complex(torch.unflatten(wide, 2, (-1, 2)))
        numbers[:, : -self._kv_heads].mul_(turns)
        return wide.to(heads.dtype)


def _pair_order(module: PreTrainedModel) -> Tensor | None:
    """The rows of query, key and value with the two numbers of a pair side by side.

    Where they stand half a head apart: queries and keys are laid out alike, so no product of them
    notices. None where they stand so already.
    """
    if rotation(module) != HALVES:
        return None
    heads, kv_heads, dim = head_counts(module)
    turning = (heads + kv_heads) * dim
    rows = torch.arange(turning).view(-1, 2, dim // 2).transpose(1, 2).flatten()
    return torch.cat([rows, torch.arange(turning, turning + kv_heads * dim)])


class _Packing:
    """Puts linear layers into the form that is fastest here, one after the other.

    held_bytes: of what was packed. least_rows: how many rows an input must have. kernels: the
    names of what was packed into.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self.least_rows = 1
        self.kernels: set[str] = set()

    def packed(self, *parts: nn.Module, order: Tensor | None = None) -> Linear:
        """Layers of one input as one."""
        if all(type(part) is nn.Linear for part in parts):
            return self._dense(cast(Sequence[nn.Linear], parts), order)
        first, *others = (cast(Quantised, part) for part in parts)
        kernel = first.packed(*others, order=order)
        self.held_bytes += kernel.nbytes
        self.kernels.add(type(kernel).__name__)
        return cast(Linear, kernel.multiply)

    def _dense(self, parts: Sequence[nn.Linear], order: Tensor | None) -> Linear:
        weight = parts[0].weight
        plain = weight.dtype is torch.float32 and weight.device.type == "cpu"
        if plain and packed_kernel_is_exact():
            # oneDNN's product of one row adds up otherwise than that of several, which all agree:
            # with two rows at least an answer is the same alone and in company, bit by bit.
            self.least_rows = 2
        kind = PackedLinear if self.least_rows == 2 else DenseLinear
        linear = kind(parts, order)
        self.held_bytes += linear.nbytes
        self.kernels.add(kind.__name__)
        return linear
