"""The hidden state of a model, turned, so that rounding to few bits costs less.

A few places of a hidden state are a hundred times as large as the rest, and a row that is rounded
with one scale loses the small ones. Turned by an orthogonal matrix Q all places are alike. Norms by
the root mean square do not notice, once their weights stand in the matrices behind them; so
everything that reads the hidden state takes W diag(norm) Q, everything that adds to it Q^T W, and
the model computes what it did before, without an operation more (Ashkboos et al. 2024, "QuaRot").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from glm_backend.models.checkpoint import Checkpoint
from glm_backend.models.quantization import QuantizedWeight, row_blocks

#: Models whose blocks read the hidden state through a norm and add to it without one.
_FAMILIES = {"llama", "qwen2", "mistral", "glm"}
_FIRST_NORM, _SECOND_NORM, _LAST_NORM = "input_layernorm", "post_attention_layernorm", "norm"
#: The norm that stands before each matrix that reads the hidden state.
_READERS = dict.fromkeys(("q_proj", "k_proj", "v_proj"), _FIRST_NORM)
_READERS |= dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj"), _SECOND_NORM)
_WRITERS = {"o_proj", "down_proj"}
_EMBEDDING, _HEAD, _HEAD_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


class Rotation:
    """Turns the weights of one checkpoint as they are read."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Reads the norms, which the other weights must know."""
        vectors = checkpoint.stream(lambda done: None, wanted=lambda info: len(info.shape) == 1)
        self._norms = {
            name: tensor.float()
            for name, tensor in vectors
            if isinstance(tensor, Tensor) and name.endswith("norm.weight")
        }
        self._tied = _HEAD not in checkpoint.tensors
        size = len(self._norms[_HEAD_NORM])
        self._signs = _signs(size)
        few = max(n for n in range(1, math.isqrt(size) + 1) if size % n == 0)
        self._left, self._right = _cosines(few), _cosines(size // few)

    @classmethod
    def takes(cls, checkpoint: Checkpoint) -> bool:
        """Whether a model is of a family that may be turned, and its weights are numbers."""
        return checkpoint.config["model_type"] in _FAMILIES and not checkpoint.in_few_bits

    def turned(
        self, name: str, tensor: Tensor | QuantizedWeight
    ) -> Iterator[tuple[str, Tensor | QuantizedWeight]]:
        """What stands for a stored weight; a head that was tied to the embedding comes as well.

        Matrices that read the hidden state come as they are, for `through` to turn: in float32 the
        largest would take a gigabyte.
        """
        assert isinstance(tensor, Tensor), "only numbers are turned"
        part = name.split(".")[-2]
        if name == _EMBEDDING:
            if self._tied:
                yield _HEAD, tensor
            yield name, self._rows(tensor, self._signs)
        elif part in _WRITERS:
            yield name, self._rows(tensor.t(), self._signs).t()  # a bias, too: it is a row
        elif part in (_FIRST_NORM, _SECOND_NORM, _LAST_NORM):
            yield name, torch.ones_like(tensor)
        else:
            yield name, tensor

    def through(self, name: str) -> Callable[[Tensor], Tensor] | None:
        """What turns rows of a matrix that reads the hidden state; None for every other weight."""
        *_, part, leaf = name.split(".")
        if name == _HEAD:
            norm = _HEAD_NORM
        elif part in _READERS and leaf == "weight":
            layer = name.rsplit(".", 3)[0]
            norm = f"{layer}.{_READERS[part]}.weight"
        else:
            return None
        scales = self._signs * self._norms[norm]
        return lambda rows: self._rows(rows, scales)

    def _rows(self, weight: Tensor, scales: Tensor) -> Tensor:
        """(weight * scales) turned, for [..., hidden]; float32, some rows at a time."""
        rows = weight.reshape(-1, len(scales))
        result = torch.empty(rows.shape)
        for part in row_blocks(rows):
            wide = (rows[part].float() * scales).reshape(-1, len(self._right))
            columns = (wide @ self._right).view(-1, len(self._left), len(self._right))
            result[part] = (self._left @ columns).view(-1, len(scales))
        return result.view(weight.shape)


def _cosines(size: int) -> Tensor:
    """An orthogonal matrix of any size in which no number is much larger than others: the DCT."""
    place = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (place + 0.5) * place[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def _signs(size: int) -> Tensor:
    """+1 and -1 without a pattern, so that no smooth row comes out as one large number."""
    chance = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (size,), generator=chance) * 2.0 - 1.0
