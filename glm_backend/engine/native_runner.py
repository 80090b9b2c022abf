"""Runs a llama-like model with weights in few bits through our own kernels (glm_backend/native).

A pass is a program of some ten operations a layer, which the threads go through without Python and
without a call of any library. Each row adds up by itself and in one order, so an answer is the same
in any company, to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine.batch import Stretch
from glm_backend.engine.llama_like import (
    Layer,
    half_order,
    head_counts,
    is_known,
    layer_of,
    quantised_twin,
    turns_of,
)
from glm_backend.engine.runner import Parts, RaggedRunner, finished, gives, trial
from glm_backend.engine.slot_memory import SlotMemory
from glm_backend.native import attention, norms, products, rounding
from glm_backend.native.attention import BLOCK, HEAD_STEP, blocks_for
from glm_backend.native.compiled import Program, Step
from glm_backend.native.products import Laid

#: What keys and values are kept in.
_KV_DTYPE = torch.float16
#: What the twin's numbers are held against: activations are rounded to 8 bits.
_TWIN_DTYPE = torch.bfloat16
#: For so many the tables of rotation are made at first; those of a whole context may be large.
_FIRST_POSITIONS = 2048
#: What the inputs of linear layers are a multiple of, so that nothing has to be filled up.
_COLUMNS = 64

#: Places in the step of the layers; keys and values are behind the last one.
_X, _Q, _SCALES, _SUMS, _WIDE, _ATTENDED, _BEHIND = range(1, 8)
_COS, _SIN, _POSITIONS, _SLOTS, _GROUPS, _SCRATCH, _BLOCKS, _CACHES = range(8, 16)
#: In that of the head, which has the first four, too.
_LOGITS = 5
_ROUNDED = (_Q, _SCALES, _SUMS)

#: Of a program: the address of an operation, and what it is given.
Operation = tuple[int, tuple[int, ...]]


class Quantised(Protocol):
    """A layer with weights in few bits."""

    def joined(self, *others: Any, order: Tensor | None = None) -> tuple[Any, Tensor | None]:
        """One weight and bias in the place of those of this layer and of `others`.

        They let go of theirs. order: the rows of all in the order in which they are wanted. The
        weight has `native`, which gives it as our kernels read it.
        """
        ...


class NativeRunner:
    """Several sequences a pass. It takes the module over; keys and values are in half precision."""

    batched = True
    rewinds = True
    kernels = frozenset({"AVX-512 VNNI"})
    kv_dtype = _KV_DTYPE

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._turns = _turns(module, _FIRST_POSITIONS)
        writer = self._writer = _Writer(module)
        order = half_order(module)
        layers = [
            writer.layer(number, layer_of(layer, writer, order))
            for number, layer in enumerate(module.model.layers)
        ]
        self._ends = list(itertools.accumulate(map(len, layers)))
        self._layers = Program([operation for layer in layers for operation in layer])
        self._head = Program(writer.head(module.model.norm.weight, writer.packed(module.lm_head)))
        self.parts = len(layers)
        self.held_bytes = writer.nbytes

    @classmethod
    def fits(cls, module: PreTrainedModel) -> bool:
        """Whether this is a model for it, and a small twin has the module's own numbers."""
        plain = module.device.type == "cpu" and module.dtype is torch.float32
        if not plain or not is_known(module) or not RaggedRunner.takes(module):
            return False
        linear: list[Any] = [part for part in module.modules() if hasattr(part, "joined")]
        if not linear or not all(getattr(part.weight, "has_native", False) for part in linear):
            return False
        dim = head_counts(module)[2]
        if dim % HEAD_STEP or any(part.in_features % _COLUMNS for part in linear):
            return False
        twin = quantised_twin(module, HEAD_STEP, linear[0])
        expected = trial(twin)
        return gives(cls(twin), _TWIN_DTYPE, expected)

    def open(self, slots: int, tokens: int) -> None:
        self._slots = self._places(slots, tokens)

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        return finished(self._pass(_Batch(batch), self._ready(batch), [self._ends[-1]]))

    def read(self, batch: Sequence[Stretch]) -> Parts:
        return self._pass(_Batch(batch), self._ready(batch), self._ends)

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._slots.memory.copy(source, target, blocks_for(tokens))

    def clear(self, slot: int) -> None:
        self._slots.memory.clear(slot)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        whole = _Batch([Stretch(0, 0, token_ids, scored=len(token_ids))])
        return finished(self._pass(whole, self._places(1, len(token_ids)), [self._ends[-1]]))

    def _ready(self, batch: Sequence[Stretch]) -> _Slots:
        slots = self._slots
        for stretch in batch:
            blocks = blocks_for(stretch.end)
            if blocks > slots.blocks or not 0 <= stretch.slot < slots.count:
                raise IndexError(f"no place for {stretch.end} tokens in slot {stretch.slot}")
            slots.memory.make_ready(stretch.slot, blocks)
        return slots

    def _places(self, slots: int, tokens: int) -> _Slots:
        _, kv_heads, dim = head_counts(self._module)
        return _Slots(slots, tokens, self.parts, kv_heads * dim)

    def _pass(self, batch: _Batch, slots: _Slots, ends: Sequence[int]) -> Parts:
        """ends: of the operations between which it rests."""
        if batch.length > len(self._turns[0]):
            self._turns = _turns(self._module, 2 * batch.length)
        embedding = self._module.model.embed_tokens.weight.detach()
        hidden = F.embedding(batch.ids, embedding).float()
        writer, rows = self._writer, len(batch.ids)
        buffers = [*writer.buffers(rows), *self._turns, batch.positions, batch.slots, batch.groups]
        memory = slots.memory.tensors
        step = Step(rows, [hidden, *buffers, slots.scratch, slots.blocks, *memory])
        for begin, end in itertools.pairwise([0, *ends]):
            self._layers.run(step, begin, end)
            yield
        scored = hidden[batch.scored]
        logits = torch.empty(len(scored), writer.vocabulary)
        if len(scored):
            self._head.run(Step(len(scored), [scored, *writer.rounded(len(scored)), logits]))
        return logits[:, : self._module.config.vocab_size]


class _Slots:
    """Keys and values of so many sequences, two tensors a layer, and where scores are kept.

    A kernel does not look whether what it is told is within: whoever tells it does.

    numbers: of all heads of a token's key.
    """

    def __init__(self, slots: int, tokens: int, layers: int, numbers: int) -> None:
        self.count, self.blocks = slots, blocks_for(tokens)
        self.scratch = attention.scratch_for(self.blocks)
        self.memory = SlotMemory(slots)
        for _ in range(2 * layers):
            self.memory.new((self.blocks, BLOCK, numbers), _KV_DTYPE, torch.device("cpu"))


class _Batch:
    """The new tokens of a step, as tensors.

    ids, positions, slots: [tokens]. groups: see native/attention.py. scored: the places whose
    logits are wanted, in the order of the stretches. length: tokens of the longest.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        places = [(stretch, place) for stretch in stretches for place in range(*_span(stretch))]
        self.ids = torch.tensor([i for stretch in stretches for i in stretch.token_ids])
        self.positions = torch.tensor([place for _, place in places])
        self.slots = torch.tensor([stretch.slot for stretch, _ in places])
        self.groups = attention.groups_of([len(stretch.token_ids) for stretch in stretches])
        self.scored = [n for n, (s, place) in enumerate(places) if place >= s.end - s.scored]
        self.length = max(stretch.end for stretch in stretches)


def _span(stretch: Stretch) -> tuple[int, int]:
    return stretch.start, stretch.end


def _turns(module: PreTrainedModel, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines: float32 [positions, dim / 2] each."""
    turns = turns_of(module, positions, torch.device("cpu"))
    return turns.real.contiguous(), turns.imag.contiguous()


class _Linear(NamedTuple):
    """A linear layer as our kernels read it."""

    laid: Laid
    bias: Tensor


class _Writer:
    """Writes the operations of a model, and holds what they read.

    nbytes: of the weights. vocabulary: columns of the logits, which are more than there are tokens.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self.nbytes = self.vocabulary = 0
        self._heads, self._kv_heads, self._dim = head_counts(module)
        self._eps = torch.tensor([module.config.rms_norm_eps])
        self._hidden: int = module.config.hidden_size
        self._wide = self._columns = self._groups = 0  # of a row, at most
        self._held: list[Any] = []

    def packed(self, *parts: nn.Module, order: Tensor | None = None) -> _Linear:
        """Layers of one input as one."""
        first, *others = cast(Sequence[Quantised], parts)
        weight, bias = first.joined(*others, order=order)
        laid: Laid = weight.native()
        offset = torch.zeros(laid.rows)
        if bias is not None:
            offset[: len(bias)] = bias.detach()
        self.nbytes += laid.nbytes
        self._wide = max(self._wide, laid.rows)
        columns, groups = laid.rounded_sizes()
        self._columns, self._groups = max(self._columns, columns), max(self._groups, groups)
        self._held.append(linear := _Linear(laid, offset))
        return linear

    def layer(self, number: int, layer: Layer[_Linear]) -> list[Operation]:
        heads = (_WIDE, _COS, _SIN, _POSITIONS, _SLOTS)
        caches = (_CACHES + 2 * number, _CACHES + 2 * number + 1)
        sizes = (_BLOCKS, layer.query_key_value.laid.rows, self._heads, self._kv_heads)
        told = (_POSITIONS, _SLOTS, _GROUPS, _SCRATCH)
        return [
            self._normed(layer.before_attention, layer.query_key_value),
            self._product(layer.query_key_value, _WIDE),
            (attention.turned(self._dim), (*heads, *caches, *sizes)),
            (attention.attended(self._dim), (_WIDE, _ATTENDED, *told, *caches, *sizes)),
            self._rounded(rounding.rounded, _ATTENDED, layer.output),
            *self._added(layer.output, layer.after_attention),
            self._normed(layer.before_mlp, layer.gate_up),
            self._product(layer.gate_up, _WIDE),
            self._rounded(rounding.rounded_gated, _WIDE, layer.down),
            *self._added(layer.down, layer.after_mlp),
        ]

    def head(self, norm: Tensor, head: _Linear) -> list[Operation]:
        self.vocabulary = head.laid.rows
        return [self._normed(norm, head), self._product(head, _LOGITS)]

    def rounded(self, rows: int) -> list[Tensor]:
        """Buffers of what is rounded: q, its scales, its sums."""
        return rounding.buffers_for(rows, self._columns, self._groups)

    def buffers(self, rows: int) -> list[Tensor]:
        """Those of a pass through layers, from q on."""
        sizes = (self._wide, self._heads * self._dim, self._hidden)
        return [*self.rounded(rows), *(torch.empty(rows, size) for size in sizes)]

    def _rounded(self, kind: Callable[[int, int], int], x: int, linear: _Linear) -> Operation:
        """What rounds the input of a linear layer."""
        laid = linear.laid
        return kind(laid.form.group, laid.parts), (x, *_ROUNDED, laid.columns)

    def _normed(self, norm: Tensor | None, linear: _Linear) -> Operation:
        function, given = self._rounded(rounding.rounded_normed, _X, linear)
        return function, (*given, *self._norm(norm))

    def _norm(self, norm: Tensor | None) -> tuple[int, int]:
        """What the operations are given of a norm; None for one without weights."""
        weight = torch.ones(self._hidden) if norm is None else norm.detach().float().contiguous()
        self._held.append(weight)
        return weight.data_ptr(), self._eps.data_ptr()

    def _product(self, linear: _Linear, y: int, *, adds: bool = False) -> Operation:
        laid, bias = linear
        function = products.product(laid.form, laid.parts, adds=adds)
        held = (part.data_ptr() for part in (laid.flat, laid.scale, bias))
        return function, (*_ROUNDED, y, *held, *laid.sizes())

    def _added(self, linear: _Linear, norm: Tensor | None) -> list[Operation]:
        """A linear layer whose result is added to what it began with, perhaps behind a norm."""
        if norm is None:
            return [self._product(linear, _X, adds=True)]
        added = (_BEHIND, _X, *self._norm(norm), self._hidden)
        return [self._product(linear, _BEHIND), (norms.added_normed(), added)]
