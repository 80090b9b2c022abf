"""Runs a model that reads its prompt in both directions (the first ChatGLM-6B).

Everything before the token that begins the answer sees all of itself; from there on it is causal.
So a prompt is read in one pass: portions of it are kept until the last has come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from glm_backend.engine.batch import Batch, Stretch
from glm_backend.engine.kv_cache import KVCache
from glm_backend.engine.runner import Parts, finished, pack_quantised
from glm_backend.errors import InvalidParameter, Phrase

#: (layer, query, key, value), each [tokens, heads, head_dim], which is what it gives too
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
#: The position that the answer is written at, and how many tokens stand before it.
Layout = tuple[int, int]


class PrefixModel(Protocol):
    """What the runner needs of such a model."""

    @property
    def parts(self) -> int:
        """Layers, after each of which `logits` rests."""
        ...

    def layout(self, token_ids: Sequence[int]) -> Layout | None:
        """Where the answer is written; None without one."""
        ...

    def logits(self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor) -> Parts:
        """ids [tokens], positions [2, tokens] -> logits [len(keep), vocab]."""
        ...


class PrefixRunner:
    """The Runner of a PrefixModel."""

    batched = True
    held_bytes = 0
    kernels: frozenset[str] = frozenset()
    rewinds = False  # what a prompt's first tokens are depends on its last

    def __init__(self, module: PrefixModel) -> None:
        assert isinstance(module, nn.Module)
        pack_quantised(module)
        self._module = module
        self.parts = module.parts
        self._device = next(module.parameters()).device
        self._waiting: dict[int, list[int]] = {}
        self._layouts: dict[int, Layout] = {}

    def open(self, slots: int, tokens: int) -> None:
        self._cache = KVCache(slots, tokens)

    def check(self, token_ids: Sequence[int]) -> None:
        """Raises InvalidParameter for a prompt in which no answer begins."""
        if self._module.layout(token_ids) is None:
            allowed = Phrase("a prompt with [gMASK] or [MASK], and <sop> where the answer begins")
            value = Phrase("{count} ids", count=len(token_ids))
            raise InvalidParameter(name="prompt_ids", value=value, allowed=allowed)

    def forward(self, batch: Sequence[Stretch]) -> Tensor:
        return finished(self.read(batch))

    def read(self, batch: Sequence[Stretch]) -> Parts:
        ready = [whole for stretch in batch if (whole := self._whole(stretch)) is not None]
        if not ready:
            return torch.empty(0, 0)
        return (yield from self._run(ready, self._cache, self._layouts))

    def copy(self, source: int, target: int, tokens: int) -> None:
        raise AssertionError("it does not rewind")

    def clear(self, slot: int) -> None:
        self._cache.clear(slot)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        self.check(token_ids)
        stretch = Stretch(0, 0, token_ids, scored=len(token_ids))
        cache = KVCache(1, len(token_ids))
        return finished(self._run([stretch], cache, {0: self._layout(token_ids)}))

    def _whole(self, stretch: Stretch) -> Stretch | None:
        """The stretch with what waits before it; None while a prompt is not complete."""
        slot = stretch.slot
        if stretch.start == 0:
            self._waiting[slot] = []
            self._layouts.pop(slot, None)
        if slot in self._layouts:
            return stretch
        prompt = self._waiting[slot]
        prompt[stretch.start :] = stretch.token_ids
        if not stretch.scored:
            return None
        self._layouts[slot] = self._layout(prompt)
        return Stretch(slot, 0, prompt, stretch.scored)

    def _layout(self, token_ids: Sequence[int]) -> Layout:
        layout = self._module.layout(token_ids)
        assert layout is not None, "other prompts are refused"
        return layout

    @torch.inference_mode()
    def _run(
        self, stretches: Sequence[Stretch], cache: KVCache, layouts: dict[int, Layout]
    ) -> Parts:
        def horizon(stretch: Stretch, position: int) -> int:
            return max(position + 1, layouts[stretch.slot][1])

        batch = Batch(stretches, cache, self._device, horizon)
        places = [_position(place, layouts[stretch.slot]) for stretch, place in batch.places]
        positions = torch.tensor(places, device=self._device).T
        logits = yield from self._module.logits(batch.ids, positions, batch.attend, batch.scored)
        return logits.float().cpu()


def _position(place: int, layout: Layout) -> tuple[int, int]:
    """(position, block position) of a token."""
    answer_at, prompt = layout
    return (place, 0) if place < prompt else (answer_at, place - prompt + 1)
