"""A llama-like model as a program of our own kernels (glm_backend/native), and what its steps hold.

Operations know what they read and write by its place in the step: the constants below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine.batch import Stretch
from glm_backend.engine.llama_like import Layer, half_order, head_counts, layer_of
from glm_backend.engine.slot_memory import SlotMemory
from glm_backend.native import attention, gathering, norms, products, rounding
from glm_backend.native.attention import BLOCK, blocks_for
from glm_backend.native.compiled import Program, Step
from glm_backend.native.products import Laid

#: What keys and values are kept in.
KV_DTYPE = torch.float16

#: Places in a step: first those that the head has, too.
_X, _Q, _SCALES, _SUMS, _TABLE, _NUMBERS, _WIDE = range(1, 8)
_ATTENDED, _BEHIND, _COS, _SIN, _POSITIONS, _SLOTS, _GROUPS, _SCRATCH, _BLOCKS = range(8, 17)
#: Keys and values of the first layer; those of the others are behind them.
_CACHES = 17
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


class NativeProgram:
    """The operations of a model, which lets go of its weights, and all that they read.

    layers: a program, from the numbers of tokens to the hidden state behind the last layer. ends:
    of the operations of each layer. head: a program, from there to logits.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self.writer = writer = _Writer(module)
        order = half_order(module)
        layers = [
            writer.layer(number, layer_of(layer, writer, order))
            for number, layer in enumerate(module.model.layers)
        ]
        layers[0].insert(0, writer.embedding())
        self.ends = list(accumulate(map(len, layers)))
        self.layers = Program([operation for layer in layers for operation in layer])
        self.head = Program(writer.head(module.model.norm.weight, writer.packed(module.lm_head)))


class Slots:
    """Keys and values of so many sequences, two tensors a layer, and where scores are kept.

    numbers: of all heads of a token's key.
    """

    def __init__(self, slots: int, tokens: int, layers: int, numbers: int) -> None:
        self.count, self.blocks = slots, blocks_for(tokens)
        self.scratch = attention.scratch_for(self.blocks)
        self.memory = SlotMemory(slots)
        for _ in range(2 * layers):
            self.memory.new((self.blocks, BLOCK, numbers), KV_DTYPE, torch.device("cpu"))

    def make_ready(self, stretch: Stretch) -> None:
        """Has the memory ready that a stretch reads and writes.

        Raises IndexError where there is no place for it: a kernel does not look.
        """
        blocks = blocks_for(stretch.end)
        if blocks > self.blocks or not 0 <= stretch.slot < self.count or stretch.start < 0:
            raise IndexError(f"no place for {stretch.end} tokens in slot {stretch.slot}")
        self.memory.make_ready(stretch.slot, blocks)


class Work:
    """The buffers of passes over so many rows, of which so many are scored.

    turns: cosines and sines, float32 [positions, dim / 2] each.
    """

    def __init__(
        self, program: NativeProgram, slots: Slots, turns: Sequence[Tensor], rows: int, scored: int
    ) -> None:
        self._sizes, self._positions = (rows, scored), len(turns[0])
        writer = program.writer
        self._program, self._vocabulary, self._tokens = program, writer.vocabulary, writer.tokens
        ids, positions, places = torch.zeros(3, rows, dtype=torch.long)
        groups, wanted = torch.zeros(1 + 2 * rows, dtype=torch.long), torch.zeros(scored).long()
        self._told = [part.numpy() for part in (ids, positions, places, groups, wanted)]
        hidden, *buffers = writer.buffers(rows)
        about = [*turns, positions, places, groups, slots.scratch, slots.blocks]
        rounded = writer.rounded(rows)
        caches = slots.memory.tensors
        self.step = Step(rows, [hidden, *rounded, writer.table, ids, *buffers, *about, *caches])
        few = torch.empty(scored, hidden.shape[1])
        self._head = Step(scored, [few, *writer.rounded(scored), hidden, wanted, 0])

    def suits(self, batch: Sequence[Stretch]) -> bool:
        """Whether a pass over these is of its size, and its tables are long enough."""
        return sizes_of(batch) == self._sizes and longest_of(batch) <= self._positions

    def tell(self, batch: Sequence[Stretch], slots: Slots) -> None:
        """What the next pass is over: slots that were given before.

        Raises IndexError for a token that the model does not know, or no place in the slots.
        """
        for stretch in batch:
            slots.make_ready(stretch)
        ids, positions, places, groups, wanted = self._told
        ids[:] = [token_id for stretch in batch for token_id in stretch.token_ids]
        if len(ids) and not 0 <= ids.min() <= ids.max() < self._tokens:
            raise IndexError("the model does not know a token")
        positions[:] = [place for stretch in batch for place in range(stretch.start, stretch.end)]
        places[:] = [stretch.slot for stretch in batch for _ in stretch.token_ids]
        found = attention.groups_of([len(stretch.token_ids) for stretch in batch])
        groups[: len(found)] = found
        ends = accumulate(len(stretch.token_ids) for stretch in batch)
        wanted[:] = [
            place
            for stretch, end in zip(batch, ends, strict=True)
            for place in range(end - stretch.scored, end)
        ]

    def logits(self) -> Tensor:
        """After the layers: [scored, vocabulary] and perhaps some columns more, nobody else's."""
        logits = torch.empty(self._sizes[1], self._vocabulary)
        if len(logits):
            self._head.give(_WIDE, logits)
            self._program.head.run(self._head)
        return logits


def sizes_of(batch: Sequence[Stretch]) -> tuple[int, int]:
    """Rows of a pass, and how many of them are scored."""
    return sum(len(s.token_ids) for s in batch), sum(s.scored for s in batch)


def longest_of(batch: Sequence[Stretch]) -> int:
    """Tokens of the longest sequence."""
    return max(stretch.end for stretch in batch)


class _Linear(NamedTuple):
    """A linear layer as our kernels read it."""

    laid: Laid
    bias: Tensor


class _Writer:
    """Writes the operations of a model, and holds what they read.

    nbytes: of the weights. table: the embedding of so many tokens. vocabulary: columns of the
    logits, which may be more than there are tokens.
    """

    def __init__(self, module: PreTrainedModel) -> None:
        self.nbytes = self.vocabulary = 0
        self.table = module.model.embed_tokens.weight.detach()
        self.tokens = len(self.table)
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
        columns, groups = laid.rounded_sizes()
        self._columns, self._groups = max(self._columns, columns), max(self._groups, groups)
        self._held.append(linear := _Linear(laid, offset))
        return linear

    def embedding(self) -> Operation:
        return gathering.gathered(self.table.dtype), (_TABLE, _NUMBERS, _X, self._hidden)

    def layer(self, number: int, layer: Layer[_Linear]) -> list[Operation]:
        for linear in (layer.query_key_value, layer.gate_up):
            self._wide = max(self._wide, linear.laid.rows)
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
        """From the rows whose logits are wanted; the table is the hidden state of all."""
        self.vocabulary = head.laid.rows
        wanted = (_TABLE, _NUMBERS, _X, self._hidden)
        gather = (gathering.gathered(torch.float32), wanted)
        return [gather, self._normed(norm, head), self._product(head, _WIDE)]

    def rounded(self, rows: int) -> list[Tensor]:
        """Buffers of what is rounded: q, its scales, its sums."""
        return rounding.buffers_for(rows, self._columns, self._groups)

    def buffers(self, rows: int) -> list[Tensor]:
        """The hidden state, and what only a pass through layers has."""
        sizes = (self._hidden, self._wide, self._heads * self._dim, self._hidden)
        return [torch.empty(rows, size) for size in sizes]

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
