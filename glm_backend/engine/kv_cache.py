"""Keys and values of one sequence.

Each sequence owns its buffers, as long as its prompt and answer can become. Pages of memory that
were never written cost nothing on a CPU, so a short answer does not pay for a long limit, and a
batch needs no padding: attention reads each sequence's own view.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

#: Keys and values that stand before the first token, one pair a layer: [kv_heads, rows, head_dim].
Prefix = Sequence[tuple[Tensor, Tensor]]


class KVCache:
    """The key and value rows of one sequence in every layer, `capacity` tokens at most.

    A trained prefix (p-tuning v2) fills the first rows and counts for no position.
    """

    def __init__(self, capacity: int, prefix: Prefix = ()) -> None:
        self._prefix = prefix
        self._prefix_rows = prefix[0][0].shape[1] if prefix else 0
        self.capacity = capacity + self._prefix_rows
        self.length = self._prefix_rows
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def position(self) -> int:
        """The place of the next token in its text."""
        return self.length - self._prefix_rows

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Writes new rows behind the `length` known ones; gives views of all rows so far.

        key, value: [kv_heads, tokens, head_dim]. `length` moves only with `advance`, after the
        whole forward pass succeeded, so a step that failed half way can be taken again.
        """
        if layer not in self._layers:
            self._layers[layer] = (self._buffer(key), self._buffer(value))
            if self._prefix:
                for buffer, rows in zip(self._layers[layer], self._prefix[layer], strict=True):
                    buffer[:, : self._prefix_rows] = rows
        keys, values = self._layers[layer]
        end = self.length + key.shape[1]
        keys[:, self.length : end] = key
        values[:, self.length : end] = value
        return keys[:, :end], values[:, :end]

    def advance(self, tokens: int) -> None:
        """Makes the rows written by the last pass part of the sequence."""
        assert self.length + tokens <= self.capacity
        self.length += tokens

    def _buffer(self, like: Tensor) -> Tensor:
        heads, _, head_dim = like.shape
        return like.new_empty(heads, self.capacity, head_dim)
