"""Runs a model that reads its prompt in both directions (the first ChatGLM-6B).

Everything before the token that begins the answer sees all of itself; from there on it is causal.
So a prompt is read in one pass: portions of it are kept until that token has come.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from glm_backend.engine.kv_cache import KVCache
from glm_backend.engine.runner import Stretch, attend, causal_mask
from glm_backend.errors import InvalidParameter, Phrase


class Attend(Protocol):
    """(layer, query, key, value), each [1, heads, tokens, head_dim] -> [1, tokens, heads, dim]."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


class PrefixModel(Protocol):
    """What the runner needs of such a model."""

    def layout(self, token_ids: Sequence[int]) -> tuple[int, int] | None:
        """(position that the answer is written at, tokens before it); None without an answer."""
        ...

    def logits(self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor) -> Tensor:
        """ids [tokens], positions [2, tokens] -> logits [len(keep), vocab]."""
        ...


class PrefixCache(KVCache):
    """Rows of one sequence, with the portions of its prompt that wait for the rest."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.waiting: list[int] = []
        self.layout: tuple[int, int] | None = None


class PrefixRunner:
    """The Runner of a PrefixModel."""

    batched = True

    def __init__(self, module: PrefixModel) -> None:
        assert isinstance(module, nn.Module)
        self._module = module
        self._device = next(module.parameters()).device

    def new_cache(self, capacity: int) -> PrefixCache:
        return PrefixCache(capacity)

    def check(self, token_ids: Sequence[int]) -> None:
        """Raises InvalidParameter for a prompt in which no answer begins."""
        if self._module.layout(token_ids) is None:
            allowed = Phrase("a prompt with [gMASK] or [MASK], and <sop> where the answer begins")
            value = Phrase("{count} ids", count=len(token_ids))
            raise InvalidParameter(name="prompt_ids", value=value, allowed=allowed)

    def forward(self, batch: Sequence[Stretch[PrefixCache]]) -> Tensor:
        """Logits after each stretch; not finite where the prompt is not complete yet."""
        whole = [Stretch([*s.cache.waiting, *s.token_ids], s.cache) for s in batch]
        layouts = [s.cache.layout or self._module.layout(s.token_ids) for s in whole]
        ready = [i for i, layout in enumerate(layouts) if layout is not None]
        rows: list[Tensor | None] = [None] * len(batch)
        if ready:
            chosen = [whole[i] for i in ready]
            last = torch.tensor([len(s.token_ids) for s in chosen]).cumsum(0) - 1
            logits = self._run(chosen, [layouts[i] for i in ready], last)
            for i, row in zip(ready, logits, strict=True):
                rows[i] = row
        for stretch, layout in zip(whole, layouts, strict=True):
            stretch.cache.layout = layout
            stretch.cache.waiting = [] if layout else list(stretch.token_ids)
        width = next((len(row) for row in rows if row is not None), 1)
        return torch.stack([torch.full((width,), torch.nan) if r is None else r for r in rows])

    def score(self, token_ids: Sequence[int]) -> Tensor:
        self.check(token_ids)
        stretch = Stretch(token_ids, self.new_cache(len(token_ids)))
        keep = torch.arange(len(token_ids))
        return self._run([stretch], [self._module.layout(token_ids)], keep)

    def _run(
        self,
        batch: Sequence[Stretch[PrefixCache]],
        layouts: Sequence[tuple[int, int] | None],
        keep: Tensor,
    ) -> Tensor:
        places: list[tuple[int, int]] = []
        for stretch, layout in zip(batch, layouts, strict=True):
            assert layout is not None
            places += _positions(stretch, layout)
            stretch.mask = _mask(stretch, layout[1], self._device)
        ids = [token for stretch in batch for token in stretch.token_ids]
        with torch.inference_mode():
            logits = self._module.logits(
                torch.tensor(ids, device=self._device),
                torch.tensor(places, device=self._device).T,
                functools.partial(attend, ragged=batch),
                keep.to(self._device),
            )
            logits = logits.float().cpu()
        for stretch in batch:
            stretch.cache.advance(len(stretch.token_ids))
        return logits


def _positions(stretch: Stretch[PrefixCache], layout: tuple[int, int]) -> list[tuple[int, int]]:
    """(position, block position) of each new token."""
    answer_at, prompt = layout
    first = stretch.cache.position
    return [
        (i, 0) if i < prompt else (answer_at, i - prompt + 1)
        for i in range(first, first + len(stretch.token_ids))
    ]


def _mask(stretch: Stretch[PrefixCache], prompt: int, device: torch.device) -> Tensor | None:
    mask = causal_mask(stretch, device)
    if mask is not None:
        mask[:, :prompt] = True
    return mask
