"""One step laid out for the model: the new tokens of several sequences in one row.

Linear layers see one matrix. Attention is taken in groups: tokens that answers are made of stand
one by one, those whose slots lie side by side and are of one length class in one call; a prompt is
read in blocks. Each token sees the rows of its own slot, up to its own. How many rows a call reads
depends on the sequence alone (`padded`), so an answer is the same in any company.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from glm_backend.engine.kv_cache import KVCache, padded, view_of

_jit: Any = torch.jit  # which has no types
#: Tokens of a prompt that one call of attention takes; a block never crosses a multiple of it.
_BLOCK_TOKENS = 64
#: Queries that stand in one matrix, of several heads for few tokens. Fewer than 192, from where on
#: torch's attention takes them in larger portions, which add up otherwise.
_BLOCK_QUERIES = 128
#: Queries of a block are filled up to a multiple of it: products of fewer rows add up otherwise.
_BLOCK_STEP = 16


@dataclass(slots=True)
class Stretch:
    """The new tokens of one sequence in one step.

    start: its tokens that are in the slot already. scored: of how many of the last tokens the
    logits are wanted. answering: they belong to an answer, those behind the first are guesses, and
    each is taken exactly as it would be alone; else they are a part of a prompt.
    """

    slot: int
    start: int
    token_ids: Sequence[int]
    scored: int = 1
    answering: bool = False

    @property
    def end(self) -> int:
        """Tokens of the sequence after this step."""
        return self.start + len(self.token_ids)

    @property
    def is_single(self) -> bool:
        """The next token of an answer, without guesses."""
        return self.answering and len(self.token_ids) == 1


#: Rows of its slot that the token at a position may see, its own included.
Horizon = Callable[[Stretch, int], int]


def causal(stretch: Stretch, position: int) -> int:
    """Every token sees those before it, and itself."""
    return position + 1


@dataclass(slots=True)
class _Group:
    """Tokens that one call of attention takes.

    tokens: their places in the row. first_slot, slots: one for all of them, or as many as there
    are tokens, side by side.
    horizons: how many rows each sees. rows: how many the call reads. one_by_one: each token is an
    entry of the batch, else all are queries of one entry.
    """

    tokens: slice
    first_slot: int
    slots: int
    horizons: Sequence[int]
    rows: int
    one_by_one: bool
    _masks: dict[tuple[int | None, torch.device], Tensor] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        """query: [all tokens, heads, dim]; key, value: the layer's whole cache, [slots, capacity,
        kv_heads, dim] -> [tokens of this group, heads, dim]."""
        keys, values = (view_of(p, self.first_slot, self.slots, self.rows) for p in (key, value))
        query = query[self.tokens]
        if not self.one_by_one:
            return self._attend_block(query, keys, values, scale, window)
        return _attend_one_by_one(query, keys, values, self.mask(query, window), scale)

    def _attend_block(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        """[tokens, heads, dim] -> the same

        Query heads stand below each other as long as that fills up a block, so that few tokens
        are not padded in each head.
        """
        query = _by_key_heads(query, keys)
        count, kv_heads, share, dim = query.shape
        below = _heads_below(share, count)
        apart, rows = share // below, below * count
        query = query.view(count, kv_heads, apart, below, dim).permute(1, 2, 3, 0, 4)
        query = query.reshape(kv_heads, apart, rows, dim)
        mask = self._mask(query, window, below)
        if missing := len(mask) - rows:
            query = F.pad(query, (0, 0, 0, missing))
        keys, values = (part[0, :, None].expand(-1, apart, -1, -1) for part in (keys, values))
        out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
        out = out[:, :, :rows].view(kv_heads, apart, below, count, dim)
        return out.permute(3, 0, 1, 2, 4).reshape(count, -1, dim)

    def mask(self, like: Tensor, window: int | None = None) -> Tensor:
        """What is added to the scores of tokens one by one: [tokens, 1, 1, rows]."""
        return self._mask(like, window, 1).view(-1, 1, 1, self.rows)

    def _mask(self, like: Tensor, window: int | None, times: int) -> Tensor:
        """What is added to the scores: [queries, rows], the same for every layer of a device.

        times: how often the tokens are there, one below the other. Of a block there may be more
        queries than that; the others see something, too.
        """
        key = window, like.device
        if key not in self._masks:
            places = torch.arange(self.rows, device=like.device)
            horizons = [*self.horizons] * times
            missing = 0 if self.one_by_one else -len(horizons) % _BLOCK_STEP
            horizons += [self.rows] * missing
            ends = torch.tensor(horizons, device=like.device)[:, None]
            seen = places < ends
            if window is not None:
                seen &= places >= ends - window
            blank = torch.zeros_like(seen, dtype=like.dtype)
            self._masks[key] = blank.masked_fill_(~seen, -torch.inf)
        return self._masks[key]


class Answers(NamedTuple):
    """A step without any prompt, as tensors.

    rows: [tokens], the places of the new keys and values. groups: [groups, 4], of each the tokens,
    the first slot, how many slots, and how many rows of them it reads. masks: what the groups add
    to the scores, [tokens * rows] of each behind the other's. caches: one a layer, [slots,
    capacity, 2 * kv_heads, dim].
    """

    rows: Tensor
    groups: Tensor
    masks: Tensor
    caches: list[Tensor]

    def attend_fused(self, layer: int, heads: Tensor, kv_heads: int, scale: float) -> Tensor:
        """As Batch.attend_fused."""
        cache = self.caches[layer]
        new = heads[:, -2 * kv_heads :].to(cache.dtype)
        cache.flatten(0, 1).index_copy_(0, self.rows, new)
        query = heads[:, : -2 * kv_heads].to(cache.dtype)
        attend = _group_by_group() if _jit.is_tracing() else _attend_groups
        return attend(query, cache, self.groups, self.masks, scale).to(heads.dtype)


class Batch:
    """The tensors of one step over `stretches`, whose keys and values lie in `cache`.

    device: where its own tensors are; layers may be on others, too.
    ids, positions: [tokens]. scored: the places whose logits are wanted, in the order of the
    stretches. places: the stretch and the position of each token. length: tokens of the longest.
    """

    def __init__(
        self,
        stretches: Sequence[Stretch],
        cache: KVCache,
        device: torch.device,
        horizon: Horizon = causal,
    ) -> None:
        self._cache = cache
        self._horizon = horizon
        in_order = sorted(stretches, key=lambda s: (not s.is_single, s.slot))
        self.places = [(s, position) for s in in_order for position in range(s.start, s.end)]
        self.length = max(stretch.end for stretch in stretches)
        for stretch in stretches:
            cache.make_ready(stretch.slot, stretch.end)
        self.ids = torch.tensor([i for s in in_order for i in s.token_ids], device=device)
        self.positions = torch.tensor([position for _, position in self.places], device=device)
        rows = [cache.row(stretch.slot, position) for stretch, position in self.places]
        self._rows = {device: torch.tensor(rows, device=device)}
        self.scored = torch.tensor(_scored(stretches, in_order), dtype=torch.long, device=device)
        self._groups = list(self._grouped(in_order))

    def answers(self) -> Answers | None:
        """The step as tensors, if no prompt is read in it; see Answers."""
        caches = self._cache.fused()
        if not caches or not all(group.one_by_one for group in self._groups):
            return None
        groups = [(len(g.horizons), g.first_slot, g.slots, g.rows) for g in self._groups]
        masks = [group.mask(caches[0]).flatten() for group in self._groups]
        return Answers(self._rows[caches[0].device], torch.tensor(groups), torch.cat(masks), caches)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float | None = None,
        window: int | None = None,
    ) -> Tensor:
        """Writes the new keys and values of a layer, and attends to all of them.

        query: [tokens, heads, dim], key, value: [tokens, kv_heads, dim] -> [tokens, heads, dim].
        window: how many rows back a token sees at most.
        """
        keys, values = self._cache.extend(layer, self._rows_on(key.device), key, value)
        return self._attended(query, keys, values, scale, window)

    def attend_fused(self, layer: int, heads: Tensor, kv_heads: int, scale: float) -> Tensor:
        """The same for queries, keys and values behind each other: [tokens, heads, dim].

        -> [tokens, query heads, dim]
        """
        rows = self._rows_on(heads.device)
        (cache,) = self._cache.extend(layer, rows, heads[:, -2 * kv_heads :])
        keys, values = cache[:, :, :kv_heads], cache[:, :, kv_heads:]
        return self._attended(heads[:, : -2 * kv_heads], keys, values, scale, None)

    def _rows_on(self, device: torch.device) -> Tensor:
        """The places of the new keys and values, on the device of a layer."""
        if device not in self._rows:
            first = next(iter(self._rows.values()))
            self._rows[device] = first.to(device)
        return self._rows[device]

    def _attended(
        self, query: Tensor, keys: Tensor, values: Tensor, scale: float | None, window: int | None
    ) -> Tensor:
        narrow = query.to(keys.dtype)
        parts = [group.attend(narrow, keys, values, scale, window) for group in self._groups]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).to(query.dtype)

    def _grouped(self, in_order: Sequence[Stretch]) -> Iterator[_Group]:
        place = 0
        for stretches, size in self._sections(in_order):
            first, last = stretches[0], stretches[-1]
            tokens = slice(place, place + size)
            one_by_one = first.answering
            horizons = [
                self._cache.prefix_rows + self._horizon(stretch, position)
                for stretch, position in self.places[tokens]
            ]
            rows = max(horizons)
            if not one_by_one:  # as many as for the whole block, wherever it is cut
                rows = max(rows, self._cache.prefix_rows + _block_end(self.places[place][1]))
            rows = min(padded(rows), self._cache.capacity)
            slots = last.slot - first.slot + 1
            yield _Group(tokens, first.slot, slots, horizons, rows, one_by_one)
            place += size

    def _sections(self, in_order: Sequence[Stretch]) -> Iterator[tuple[Sequence[Stretch], int]]:
        """What one call takes: some stretches of one token, or so many tokens of one stretch."""
        singles = [s for s in in_order if s.is_single]
        run: list[Stretch] = []
        for stretch in singles:
            if run and not self._side_by_side(run[-1], stretch):
                yield run, len(run)
                run = []
            run.append(stretch)
        if run:
            yield run, len(run)
        for stretch in in_order[len(singles) :]:
            position = stretch.start
            while position < stretch.end:
                # A draft is cut where it would be of another length class.
                cut = self._class_end(position) if stretch.answering else _block_end(position)
                yield [stretch], min(cut, stretch.end) - position
                position = min(cut, stretch.end)

    def _side_by_side(self, one: Stretch, other: Stretch) -> bool:
        return other.slot == one.slot + 1 and self._class_of(one) == self._class_of(other)

    def _class_of(self, stretch: Stretch) -> int:
        return padded(self._cache.prefix_rows + self._horizon(stretch, stretch.start))

    def _class_end(self, position: int) -> int:
        """The first position whose token is of another length class."""
        prefix_rows = self._cache.prefix_rows
        return padded(prefix_rows + position + 1) - prefix_rows


def _attend_one_by_one(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float | None
) -> Tensor:
    """Attention of tokens that are an entry of the batch each, of one slot or each of its own.

    query: [tokens, heads, dim]; keys, values: [tokens or 1, kv_heads, rows, dim]; mask: [tokens,
    1, 1, rows] -> [tokens, heads, dim]
    """
    keys = keys.expand(query.shape[0], -1, -1, -1)
    values = values.expand(query.shape[0], -1, -1, -1)
    query = _by_key_heads(query, keys)
    share = query.shape[2]
    if share % 4 == 3:  # one more is quicker than one less
        query = F.pad(query, [0, 0, 0, 1])
    out = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    return out[:, :, :share].flatten(1, 2)


def _attend_groups(
    query: Tensor, cache: Tensor, groups: Tensor, masks: Tensor, scale: float
) -> Tensor:
    """Attention of all groups, see Answers: [tokens, heads, dim] -> the same."""
    kv_heads = cache.size(2) // 2
    parts: list[Tensor] = []
    token, place = 0, 0
    spans: list[list[int]] = groups.tolist()
    for tokens, first, slots, rows in spans:
        both = view_of(cache, first, slots, rows)
        mask = masks[place : place + tokens * rows].view(tokens, 1, 1, rows)
        some = query[token : token + tokens]
        keys, values = both[:, :kv_heads], both[:, kv_heads:]
        parts.append(_attend_one_by_one(some, keys, values, mask, scale))
        token += tokens
        place += tokens * rows
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@functools.cache
def _group_by_group() -> Callable[..., Tensor]:
    """That as a function of TorchScript: the number of groups is no part of a recording then."""
    attend: Callable[..., Tensor] = _jit.script(_attend_groups)
    return attend


def _by_key_heads(query: Tensor, keys: Tensor) -> Tensor:
    """[tokens, heads, dim] -> [tokens, kv_heads, share, dim].

    The query heads of one key head are queries of that head: nothing is repeated.
    """
    return torch.unflatten(query, 1, [keys.size(1), -1])


@functools.cache
def _heads_below(share: int, tokens: int) -> int:
    """Query heads of a key head that stand below each other, for so many tokens of a block."""
    divisors = [n for n in range(1, share + 1) if share % n == 0]
    return max(n for n in divisors if n * tokens <= _BLOCK_QUERIES)


def _block_end(position: int) -> int:
    return (position // _BLOCK_TOKENS + 1) * _BLOCK_TOKENS


def _scored(stretches: Sequence[Stretch], in_order: Sequence[Stretch]) -> list[int]:
    """The places of the tokens whose logits are wanted, in the order of `stretches`."""
    ends, place = {}, 0
    for stretch in in_order:
        place += len(stretch.token_ids)
        ends[stretch.slot] = place
    return [i for s in stretches for i in range(ends[s.slot] - s.scored, ends[s.slot])]
