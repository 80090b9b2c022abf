"""Attention of our own kernels beside torch's, and the same bits however tokens are cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from glm_backend.native import attention
from glm_backend.native.attention import BLOCK, blocks_for, groups_of
from glm_backend.native.compiled import Program, Step

TOKENS = 150


class Attending:
    """A layer's attention with slots of its own."""

    def __init__(self, dim: int, heads: int, kv_heads: int, slots: int = 3) -> None:
        self.dim, self.heads, self.kv_heads = dim, heads, kv_heads
        self.blocks = blocks_for(TOKENS)
        shape = (slots, self.blocks, BLOCK * kv_heads * dim)
        self.caches = [torch.zeros(shape, dtype=torch.float16) for _ in range(2)]
        places = torch.arange(TOKENS)[:, None] / 7 ** torch.linspace(0, 3, dim // 2)
        self.cos, self.sin = places.cos(), places.sin()
        sizes = ((heads + 2 * kv_heads) * dim, heads, kv_heads)
        turned = (attention.turned(dim), (1, 3, 4, 5, 6, 9, 10, 11, *sizes))
        attended = (attention.attended(dim), (1, 2, 5, 6, 7, 8, 9, 10, 11, *sizes))
        self.program = Program([turned, attended])

    def __call__(self, x: Tensor, stretches: list[tuple[int, int, int]]) -> Tensor:
        """stretches: of each its slot and where it begins and ends."""
        positions = torch.cat([torch.arange(begin, end) for _, begin, end in stretches])
        lengths = [end - begin for _, begin, end in stretches]
        slots = torch.cat([torch.full((end - begin,), slot) for slot, begin, end in stretches])
        y = torch.full((len(x), self.heads * self.dim), torch.nan)
        scratch = attention.scratch_for(self.blocks)
        about = [self.cos, self.sin, positions, slots, torch.tensor(groups_of(lengths)), scratch]
        self.program.run(Step(len(x), [x.clone(), y, *about, *self.caches, self.blocks]))
        return y

    def expected(self, x: Tensor) -> Tensor:
        """Of one sequence from its beginning, by torch."""
        heads = x.view(len(x), -1, self.dim)
        half = self.dim // 2
        cos, sin = (part[: len(x), None] for part in (self.cos, self.sin))
        first, second = heads[..., :half], heads[..., half:]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
        turning = self.heads + self.kv_heads
        query, key = turned[:, : self.heads], turned[:, self.heads : turning].half().float()
        value = heads[:, turning:].half().float()
        parts = (part.transpose(0, 1)[None] for part in (query, key, value))
        out = F.scaled_dot_product_attention(*parts, is_causal=True, enable_gqa=True)
        return out[0].transpose(0, 1).flatten(1)


def heads_of(attending: Attending, tokens: int, seed: int = 0) -> Tensor:
    width = (attending.heads + 2 * attending.kv_heads) * attending.dim
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dim", [64, 128, 256])
@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (9, 3), (4, 4), (16, 1), (14, 2)])
def test_it_gives_what_torch_gives(dim: int, heads: int, kv_heads: int) -> None:
    attending = Attending(dim, heads, kv_heads)
    for tokens in (1, 15, 16, 17, 64, 65, TOKENS):
        x = heads_of(attending, tokens)
        torch.testing.assert_close(
            attending(x, [(1, 0, tokens)]), attending.expected(x), rtol=1e-4, atol=2e-5
        )


@pytest.mark.parametrize("step", [1, 2, 3, 5, 16, 63])
def test_however_tokens_are_cut_and_whoever_is_beside_they_are_the_same(step: int) -> None:
    attending = Attending(64, 9, 3)
    x, other = heads_of(attending, TOKENS), heads_of(attending, TOKENS, seed=1)
    whole = attending(x, [(0, 0, TOKENS)])
    attending(other[:40], [(2, 0, 40)])
    parts = []
    for begin in range(0, TOKENS, step):
        end = min(begin + step, TOKENS)
        beside = min(40 + begin // 2, TOKENS - 1)
        rows = torch.cat([other[beside : beside + 1], x[begin:end]])
        parts.append(attending(rows, [(2, beside, beside + 1), (1, begin, end)])[1:])
    assert torch.equal(torch.cat(parts), whole)


def test_what_one_slot_holds_is_seen_by_no_other() -> None:
    attending = Attending(64, 2, 1)
    x = heads_of(attending, 30)
    expected = attending(x, [(1, 0, 30)])
    poison = torch.full_like(heads_of(attending, TOKENS), torch.nan)
    attending(poison, [(0, 0, TOKENS)])
    attending(poison, [(2, 0, TOKENS)])
    assert torch.equal(attending(x, [(1, 0, 30)]), expected)


def test_a_far_score_takes_everything() -> None:
    """Scores of hundreds: the exponential is of what they lack to the highest."""
    attending = Attending(64, 1, 1)
    x = heads_of(attending, 20) * 40
    torch.testing.assert_close(
        attending(x, [(0, 0, 20)]), attending.expected(x), rtol=1e-2, atol=1e-2
    )


def test_groups_are_of_four_tokens_of_a_sequence_at_most() -> None:
    assert groups_of([1, 9, 4]) == [5, 0, 1, 1, 4, 5, 4, 9, 1, 10, 4]
