"""Keys and values of every sequence: a slot each, in one tensor a layer.

Sequences of one length class that lie side by side are read by one call.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from glm_backend.engine.slot_memory import SlotMemory

#: Keys and values that stand before the first token, one pair a layer: [kv_heads, rows, head_dim].
Prefix = Sequence[tuple[Tensor, Tensor]]

_LEAST_ROWS = 64
#: Torch's attention for CPUs walks over keys in stretches of so many rows.
_STRETCH_ROWS = 512


def padded(rows: int) -> int:
    """How many rows attention reads for a sequence of `rows`; what is beyond is masked.

    It depends on the sequence alone, never on its neighbours: matrix products of other shapes add
    up in another order, and an answer would change with the company it keeps.
    """
    if rows > _STRETCH_ROWS:
        return -(-rows // _STRETCH_ROWS) * _STRETCH_ROWS
    return max(_LEAST_ROWS, 1 << (rows - 1).bit_length())


class KVCache:
    """`slots` sequences of at most `tokens` tokens each, of each layer on the layer's own device.

    A trained prefix (p-tuning v2) fills the first rows of every slot and counts for no position.
    Every row is finite at all times: what is masked is multiplied by zero, not left out. dtype: in
    what they are kept, None for what they come in.
    """

    def __init__(
        self,
        slots: int,
        tokens: int,
        prefix: Prefix = (),
        dtype: torch.dtype | None = None,
    ) -> None:
        self.slots = slots
        self.prefix_rows = prefix[0][0].shape[1] if prefix else 0
        self.capacity = padded(tokens + self.prefix_rows)
        self._memory = SlotMemory(slots)
        self._dtype = dtype
        self._prefix = prefix
        self._layers: dict[int, list[Tensor]] = {}

    def row(self, slot: int, position: int) -> int:
        """Where the token at `position` of a slot lies, counted over all slots."""
        return slot * self.capacity + self.prefix_rows + position

    def make_ready(self, slot: int, tokens: int) -> None:
        """Has the memory ready that a sequence of so many tokens reads and writes."""
        rows = min(padded(self.prefix_rows + tokens), self.capacity)
        self._memory.make_ready(slot, rows)

    def extend(self, layer: int, rows: Tensor, *new: Tensor) -> Sequence[Tensor]:
        """Writes new rows; gives all of the layer, each as [slots, capacity, heads, head_dim].

        rows: [tokens], as `row` counts them. new: keys and values, each [tokens, kv_heads,
        head_dim], or both behind each other, [tokens, 2 * kv_heads, head_dim].
        """
        buffers = self._layers.get(layer)
        if buffers is None:
            buffers = self._layers[layer] = [self._buffer(like) for like in new]
            self._write_prefix(layer, slice(None))
        for buffer, tokens in zip(buffers, new, strict=True):
            buffer.view(-1, *tokens.shape[1:]).index_copy_(0, rows, tokens.to(buffer.dtype))
        return buffers

    def fused(self) -> list[Tensor]:
        """The buffer of each layer so far, where keys and values lie behind each other."""
        return [buffers[0] for buffers in self._layers.values() if len(buffers) == 1]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Gives the slot `target` the first `tokens` of `source`."""
        self._memory.copy(source, target, self.prefix_rows + tokens)

    @torch.inference_mode()
    def clear(self, slot: int) -> None:
        """Makes every row of a slot zero, and gives its memory back where that can be."""
        self._memory.clear(slot)
        for layer in self._layers:
            self._write_prefix(layer, slice(slot, slot + 1))

    def _write_prefix(self, layer: int, slots: slice) -> None:
        if not self._prefix:
            return
        parts = [rows.transpose(0, 1) for rows in self._prefix[layer]]
        buffers = self._layers[layer]
        if len(buffers) == 1:
            parts = [torch.cat(parts, dim=1)]
        for buffer, part in zip(buffers, parts, strict=True):
            buffer[slots, : self.prefix_rows] = part

    def _buffer(self, like: Tensor) -> Tensor:
        shape = (self.capacity, *like.shape[1:])
        return self._memory.new(shape, self._dtype or like.dtype, like.device)


def view_of(buffer: Tensor, first: int, slots: int, rows: int) -> Tensor:
    """The first rows of slots that lie side by side, as one view: [slots, heads, rows, dim]."""
    per_slot = buffer.stride(0)
    return buffer.as_strided(
        [slots, buffer.size(2), rows, buffer.size(3)],
        [per_slot, buffer.stride(2), buffer.stride(1), 1],
        buffer.storage_offset() + first * per_slot,
    )
