"""Keys and values of sequences, and attention over them.

A slot has blocks of 16 tokens. A block of keys has, for each key head, of each number of a head the
16 tokens beside each other: a vector is one number of 16 tokens, so that scores need no sums over
lanes. A block of values has the numbers of a token beside each other. Both are in half precision.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glm_backend.native.code import (
    F32,
    FLOATS,
    HALVES,
    I32,
    I64,
    LANES,
    PTR,
    VECTOR,
    Code,
    Operation,
    Value,
    Variable,
    number,
    numbered,
    of_lanes,
)
from glm_backend.native.compiled import MOST_THREADS, compiled
from glm_backend.native.functions import exponential
from glm_backend.native.processor import is_wide

#: Tokens of a block, and blocks whose scores are summed up at once.
BLOCK = LANES
_BLOCKS_AT_ONCE = 4
#: Tokens of a prompt that are attended for together.
_TOKENS_AT_ONCE = 4
#: What numbers of a head are a multiple of.
HEAD_STEP = 64
_HALF_BYTES = LANES * 2
_NOTHING = float("-inf")


def blocks_for(tokens: int) -> int:
    """Blocks of a slot that is to hold so many tokens: whole rounds of scores."""
    step = BLOCK * _BLOCKS_AT_ONCE
    return -(-tokens // step) * _BLOCKS_AT_ONCE


def _queries_at_once() -> tuple[int, ...]:
    """Queries that share what was loaded of keys and values; more do not fit the registers."""
    return (6, 4, 3, 2, 1) if is_wide() else (1,)


def scratch_for(blocks: int) -> Tensor:
    """Where `attended` keeps scores, of slots of so many blocks."""
    return torch.empty(MOST_THREADS, _queries_at_once()[0], blocks * BLOCK)


def groups_of(lengths: Sequence[int]) -> list[int]:
    """Tokens that are attended for together, as `attended` is told of them.

    lengths: of the sequences whose tokens stand behind each other. Gives how many groups, then of
    each its first token and how many.
    """
    told, first = [0], 0
    for length in lengths:
        for begin in range(0, length, _TOKENS_AT_ONCE):
            told += [first + begin, min(_TOKENS_AT_ONCE, length - begin)]
        first += length
    told[0] = len(told) // 2
    return told


@functools.cache
def turned(dim: int) -> int:
    """The address of the operation that turns queries and keys and writes keys and values down.

    Buffers: heads, float32 [rows, width], of each row the queries, keys and values, the two numbers
    that turn together half a head apart (Su et al. 2021), of which queries are turned and scaled in
    place; cos and sin, float32 [positions, dim / 2]; positions and slots, int64 [rows]; keys and
    values of the layer. Numbers: blocks of a slot. Sizes: width, query heads, key heads.
    """
    name = f"turned_{dim}"
    return compiled(functools.partial(_write_turned, name, dim), name)


def _write_turned(name: str, dim: int, module: Any) -> None:
    code = Operation(module, name)
    b = code.b
    heads, cos, sin, positions, slots, keys, values = (code.buffer() for _ in range(7))
    blocks = code.number()
    width, query_heads, kv_heads = (code.size() for _ in range(3))
    all_heads = code.sum(query_heads, kv_heads, kv_heads)
    with code.my_share(code.product(code.rows, all_heads)) as piece:
        row, head = b.sdiv(piece, all_heads), b.srem(piece, all_heads)
        numbers = code.at(
            heads, code.product(code.sum(code.product(row, width), code.product(head, dim)), 4)
        )
        position = code.load(I64, positions, code.product(row, 8))
        slot = code.load(I64, slots, code.product(row, 8))
        block = code.sum(code.product(slot, blocks), b.sdiv(position, number(BLOCK)))
        lane = b.srem(position, number(BLOCK))
        kv_head = b.srem(b.sub(head, query_heads), kv_heads)
        place = code.product(code.sum(code.product(block, kv_heads), kv_head), dim * _HALF_BYTES)
        turns = code.product(position, dim // 2 * 4)
        with b.if_else(b.icmp_signed("<", head, code.sum(query_heads, kv_heads))) as (
            turns_,
            value,
        ):
            with turns_:
                rotated = _rotated(code, numbers, code.at(cos, turns), code.at(sin, turns), dim)
                with b.if_else(b.icmp_signed("<", head, query_heads)) as (query, key):
                    with query:
                        scale = of_lanes(FLOATS, dim**-0.5)
                        for n, vector in enumerate(rotated):
                            code.store(b.fmul(vector, scale), numbers, n * VECTOR)
                    with key:
                        token = code.at(code.at(keys, place), code.product(lane, 2))
                        for n, vector in enumerate(rotated):
                            _store_key(code, vector, token, n * LANES)
            with value:
                token = code.at(code.at(values, place), code.product(lane, dim * 2))
                for n in range(dim // LANES):
                    narrow = b.fptrunc(code.load(FLOATS, numbers, n * VECTOR), HALVES)
                    code.store(narrow, token, n * _HALF_BYTES)
    code.done()


def _rotated(code: Code, numbers: Value, cos: Value, sin: Value, dim: int) -> list[Value]:
    b, half = code.b, dim // 2 * 4
    first, second = [], []
    for place in range(0, half, VECTOR):
        x, y = code.load(FLOATS, numbers, place), code.load(FLOATS, numbers, half + place)
        c, s = code.load(FLOATS, cos, place), code.load(FLOATS, sin, place)
        first.append(b.fsub(b.fmul(x, c), b.fmul(y, s)))
        second.append(b.fadd(b.fmul(y, c), b.fmul(x, s)))
    return first + second


def _store_key(code: Code, vector: Value, token: Value, first: int) -> None:
    """The numbers of a key, each in a vector of its own."""
    narrow = code.b.fptrunc(vector, HALVES)
    for lane in range(LANES):
        one = code.b.extract_element(narrow, I32(lane))
        code.store(one, token, (first + lane) * _HALF_BYTES)


@functools.cache
def attended(dim: int) -> int:
    """The address of the operation that attends: each token to those of its slot up to itself.

    Buffers: heads, as `turned` leaves them; y, float32 [rows, query heads * dim]; positions, slots;
    groups (`groups_of`, int64); scratch (`scratch_for`); keys and values. Numbers and sizes: as for
    `turned`.
    """
    name = f"attended_{dim}"
    return compiled(functools.partial(_write_attended, name, dim), name)


def _write_attended(name: str, dim: int, module: Any) -> None:
    several = {n: _Queries(module, f"{name}_{n}", dim, n) for n in _queries_at_once()}
    for queries in several.values():
        queries.write()
    code = Operation(module, name)
    b = code.b
    heads, y, positions, slots, groups, scratch, keys, values = (code.buffer() for _ in range(8))
    blocks = code.number()
    width, query_heads, kv_heads = (code.size() for _ in range(3))
    room = code.product(blocks, BLOCK)
    share = b.sdiv(query_heads, kv_heads)
    scores = code.at(scratch, code.product(code.thread, room, 4 * _queries_at_once()[0]))
    with code.helping(code.product(code.load(I64, groups), kv_heads)) as piece:
        group, kv_head = b.sdiv(piece, kv_heads), b.srem(piece, kv_heads)
        told = code.at(groups, code.product(group, 16))
        first, tokens = code.load(I64, told, 8), code.load(I64, told, 16)
        slot = code.load(I64, slots, code.product(first, 8))
        block = code.product(slot, blocks, kv_heads)
        begin = code.product(code.sum(block, kv_head), dim * _HALF_BYTES)
        held = (code.at(keys, begin), code.at(values, begin))
        step = code.product(kv_heads, dim * _HALF_BYTES)
        done = code.variable(number(0))
        queries = code.product(tokens, share)
        for at_once, attend in several.items():
            last = b.sub(queries, number(at_once - 1))
            with code.loop(done.get(), last, at_once) as query:
                given = []
                for n in range(at_once):
                    place = code.sum(query, n)
                    row = code.sum(first, b.sdiv(place, share))
                    head = code.sum(code.product(kv_head, share), b.srem(place, share))
                    along = code.product(head, dim * 4)
                    given += [
                        code.at(heads, code.sum(code.product(row, width, 4), along)),
                        code.at(y, code.sum(code.product(row, query_heads, dim * 4), along)),
                        code.load(I64, positions, code.product(row, 8)),
                    ]
                b.call(attend.function, [*held, step, scores, room, *given])
                done.set(code.sum(query, at_once))
    code.done()


class _Queries(Code):
    """Attention of some queries of one key head in one slot.

    keys, values: where the head's first block is; step: bytes to the next. scores: room for each
    query. Of each query where it is, where its result goes, and its position.
    """

    def __init__(self, module: Any, name: str, dim: int, queries: int) -> None:
        kinds = [PTR, PTR, I64, PTR, I64, *[PTR, PTR, I64] * queries]
        super().__init__(module, name, kinds)
        self.function.attributes.add("noinline")
        self._dim = dim
        self._keys, self._values, self._step, scores, room, *given = self.arguments
        self._numbers, self._y, self._positions = given[::3], given[1::3], given[2::3]
        self._queries = range(queries)
        self._scores = [self.at(scores, self.product(room, 4 * n)) for n in self._queries]

    def write(self) -> None:
        b = self.b
        longest = self._positions[0]
        for position in self._positions[1:]:
            longest = b.select(b.icmp_signed(">", position, longest), position, longest)
        longest = self.sum(longest, 1)
        highest = [self.variable(of_lanes(FLOATS, _NOTHING)) for _ in self._queries]
        with self.loop(number(0), longest, BLOCK * _BLOCKS_AT_ONCE) as token:
            self._score(token, highest)
        shares = [self._shares(n, highest[n], longest) for n in self._queries]
        for first in range(0, self._dim, HEAD_STEP):
            self._sum_values(first, longest, shares)
        self.done()

    def _block(self, of: Value, token: Value, ahead: int = 0) -> Value:
        """Where the block of a token is, or one so many behind."""
        block = self.sum(self.b.sdiv(token, number(BLOCK)), ahead)
        return self.at(of, self.product(block, self._step))

    def _score(self, token: Value, highest: list[Variable]) -> None:
        """Scores of some blocks from a token on; what a query may not see is minus infinity."""
        b, zeros = self.b, of_lanes(FLOATS, 0.0)
        ahead = range(_BLOCKS_AT_ONCE)
        blocks = [self._block(self._keys, token, n) for n in ahead]
        sums = {(q, n): self.variable(zeros) for q in self._queries for n in ahead}
        with self.loop(number(0), number(self._dim)) as place:
            keys = [self._halves(block, self.product(place, _HALF_BYTES)) for block in blocks]
            for q in self._queries:
                one = self.splat(self.load(F32, self._numbers[q], self.product(place, 4)))
                for n in ahead:
                    sums[q, n].set(self.fma(one, keys[n], sums[q, n].get()))
        for q in self._queries:
            for n in ahead:
                first = self.sum(token, n * BLOCK)
                seen = self._seen(q, first)
                score = b.select(seen, sums[q, n].get(), of_lanes(FLOATS, _NOTHING))
                highest[q].set(self.largest(highest[q].get(), score))
                self.store(score, self._scores[q], self.product(first, 4))

    def _seen(self, query: int, first: Value) -> Value:
        """Which of the 16 tokens from one on a query may see."""
        b = self.b
        lanes = numbered()
        tokens = b.add(self.splat(b.trunc(first, I32)), lanes)
        return b.icmp_signed("<=", tokens, self.splat(b.trunc(self._positions[query], I32)))

    def _shares(self, query: int, highest: Variable, longest: Value) -> Value:
        """Scores become shares, but for what they are divided by, which is given: its inverse."""
        b, zeros = self.b, of_lanes(FLOATS, 0.0)
        top = self.splat(self.largest_lane(highest.get()))
        total = self.variable(zeros)
        with self.loop(number(0), longest, BLOCK) as token:
            place = self.product(token, 4)
            share = exponential(self, b.fsub(self.load(FLOATS, self._scores[query], place), top))
            share = b.select(self._seen(query, token), share, zeros)
            total.set(b.fadd(total.get(), share))
            self.store(share, self._scores[query], place)
        return self.splat(b.fdiv(F32(1.0), self.sum_of_lanes(total.get())))

    def _sum_values(self, first: int, longest: Value, shares: list[Value]) -> None:
        """The values by their shares, of some numbers of a head."""
        vectors = range(HEAD_STEP // LANES)
        zeros = of_lanes(FLOATS, 0.0)
        sums = {(q, v): self.variable(zeros) for q in self._queries for v in vectors}
        with self.loop(number(0), longest, BLOCK) as begin:
            block = self.at(self._block(self._values, begin), first * 2)
            with self.loop(number(0), number(BLOCK)) as lane:
                token = self.at(block, self.product(lane, self._dim * 2))
                values = [self._halves(token, v * _HALF_BYTES) for v in vectors]
                for q in self._queries:
                    place = self.product(self.sum(begin, lane), 4)
                    one = self.splat(self.load(F32, self._scores[q], place))
                    for v in vectors:
                        sums[q, v].set(self.fma(one, values[v], sums[q, v].get()))
        for (q, v), total in sums.items():
            value = self.b.fmul(total.get(), shares[q])
            self.store(value, self._y[q], first * 4 + v * VECTOR)

    def _halves(self, pointer: Value, offset: Value | int) -> Value:
        return self.b.fpext(self.load(HALVES, pointer, offset), FLOATS)
