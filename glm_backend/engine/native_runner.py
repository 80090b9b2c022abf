"""Runs a llama-like model with weights in few bits through our own kernels (glm_backend/native).

A pass is a program of some ten operations a layer, which the threads go through without Python and
without a call of any library. Each row adds up by itself and in one order, so an answer is the same
in any company, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from glm_backend.engine.batch import Stretch
from glm_backend.engine.llama_like import head_counts, is_known, quantised_twin, turns_of
from glm_backend.engine.native_program import (
    KV_DTYPE,
    NativeProgram,
    Slots,
    Work,
    longest_of,
    sizes_of,
)
from glm_backend.engine.runner import Parts, RaggedRunner, gives, trial
from glm_backend.native.attention import HEAD_STEP, blocks_for
from glm_backend.native.gathering import DTYPES
from glm_backend.native.processor import processor

#: What the twin's numbers are held against: activations are rounded to 8 bits.
_TWIN_DTYPE = torch.bfloat16
#: For so many the tables of rotation are made at first; those of a whole context may be large.
_FIRST_POSITIONS = 2048
#: What the inputs of linear layers are a multiple of, so that nothing has to be filled up.
_COLUMNS = 64
#: Buffers of passes over so many rows at most are kept for the next pass of the same size.
_KEPT_ROWS = 64


class NativeRunner:
    """Several sequences a pass. It takes the module over; keys and values are in half precision."""

    batched = True
    rewinds = True
    kv_dtype = KV_DTYPE

    def __init__(self, module: PreTrainedModel) -> None:
        self._module = module
        self._program = NativeProgram(module)
        self._turns = _turns(module, _FIRST_POSITIONS)
        self._work: Work | None = None
        self.parts = len(self._program.ends)
        self.held_bytes = self._program.writer.nbytes

    @property
    def kernels(self) -> frozenset[str]:
        """Our own, as what they are written for."""
        kind = processor()
        return frozenset() if kind is None else frozenset({kind.value})

    @classmethod
    def fits(cls, module: PreTrainedModel) -> bool:
        """Whether this is a model for it, a twin has the module's own numbers, and it is fast."""
        plain = module.device.type == "cpu" and module.dtype is torch.float32
        if not plain or not is_known(module) or not RaggedRunner.takes(module):
            return False
        linear: list[Any] = [part for part in module.modules() if hasattr(part, "joined")]
        if not linear or not all(getattr(part.weight, "has_native", False) for part in linear):
            return False
        dim = head_counts(module)[2]
        if dim % HEAD_STEP or any(part.in_features % _COLUMNS for part in linear):
            return False
        if module.model.embed_tokens.weight.dtype not in DTYPES:
            return False
        twin = quantised_twin(module, HEAD_STEP, linear[0])
        expected = trial(twin)
        return gives(cls(twin), _TWIN_DTYPE, expected) and _is_fastest(linear)

    def open(self, slots: int, tokens: int) -> None:
        self._slots = self._places(slots, tokens)

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        work = self._work
        if work is None or not work.suits(batch):
            work = self._worked(batch, self._slots)
            self._work = work if sizes_of(batch)[0] <= _KEPT_ROWS else None
        return self._through(work, self._slots, batch)

    def read(self, batch: Sequence[Stretch]) -> Parts:
        work, begin = self._worked(batch, self._slots), 0
        work.tell(batch, self._slots)
        for end in self._program.ends:
            self._program.layers.run(work.step, begin, end)
            begin = end
            yield
        return self._logits(work)

    def copy(self, source: int, target: int, tokens: int) -> None:
        self._slots.memory.copy(source, target, blocks_for(tokens))

    def clear(self, slot: int) -> None:
        self._slots.memory.clear(slot)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        slots = self._places(1, len(token_ids))
        whole = [Stretch(0, 0, token_ids, scored=len(token_ids))]
        return self._through(self._worked(whole, slots), slots, whole)

    def _through(self, work: Work, slots: Slots, batch: Sequence[Stretch]) -> Tensor:
        work.tell(batch, slots)
        self._program.layers.run(work.step)
        return self._logits(work)

    def _logits(self, work: Work) -> Tensor:
        return work.logits()[:, : self._module.config.vocab_size]

    def _places(self, slots: int, tokens: int) -> Slots:
        _, kv_heads, dim = head_counts(self._module)
        return Slots(slots, tokens, self.parts, kv_heads * dim)

    def _worked(self, batch: Sequence[Stretch], slots: Slots) -> Work:
        """Buffers for such a pass."""
        longest = longest_of(batch)
        if longest > len(self._turns[0]):
            self._turns = _turns(self._module, 2 * longest)
        return Work(self._program, slots, self._turns, *sizes_of(batch))


def _is_fastest(linear: Sequence[Any]) -> bool:
    """Whether our own kernels are for most of the weights, by what was measured on this machine."""
    sizes: list[int] = [part.in_features * part.out_features for part in linear]
    ours = sum(n for n, part in zip(sizes, linear, strict=True) if part.weight.native_leads)
    return 2 * ours > sum(sizes)


def _turns(module: PreTrainedModel, positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines: float32 [positions, dim / 2] each."""
    turns = turns_of(module, positions, torch.device("cpu"))
    return turns.real.contiguous(), turns.imag.contiguous()
