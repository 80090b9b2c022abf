"""Activations in 8 bits, as the products of products.py read them, and what is done on the way.

Each group of columns has a scale of its own (the idea of llama.cpp's Q8_0:
https://github.com/ggml-org/llama.cpp). With two parts there is a second row of what rounding the
first one left over, in steps that are 254 times as small: together they are right to 16 bits, for
one reading of the weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from glm_backend.native.code import (
    F32,
    FLOATS,
    I32,
    INTS,
    LANES,
    SMALL,
    VECTOR,
    Operation,
    Value,
    number,
    of_lanes,
)
from glm_backend.native.compiled import compiled
from glm_backend.native.functions import WHOLE, exponential, norm_factor

#: Under it a group of activations counts as zero.
_SMALLEST = 1e-12
_FINER = 254.0


def buffers_for(rows: int, columns: int, groups: int) -> list[Tensor]:
    """q, scales and sums of so many rows; columns, groups: of a row, all its parts together."""
    q = torch.empty(rows, columns, dtype=torch.int8)
    return [q, torch.empty(rows, groups), torch.empty(rows, groups, dtype=torch.int32)]


@functools.cache
def rounded(group: int, parts: int) -> int:
    """The address of the operation that rounds: x -> q, scales, sums.

    Buffers: x, float32 [rows, columns]; q, int8 [rows * parts, columns]; scales, float32, and sums
    of q, int32, [rows * parts, groups]. Sizes: columns, whole groups.
    """
    return _operation("rounded", group, parts, _write_rounded)


@functools.cache
def rounded_gated(group: int, parts: int) -> int:
    """The same for silu(gate) * up; x: float32 [rows, 2 * columns], the gates first."""
    return _operation("rounded_gated", group, parts, _write_gated)


@functools.cache
def rounded_normed(group: int, parts: int) -> int:
    """The same for the root mean square norm of x (Zhang and Sennrich 2019).

    Sizes: columns. Fixed: the weight of the norm, float32 [columns], then its epsilon, float32.
    """
    return _operation("rounded_normed", group, parts, _write_normed)


def _operation(
    name: str, group: int, parts: int, write: Callable[[Operation, _Rounding], None]
) -> int:
    full = f"{name}_{group}_{parts}"

    def written(module: Any) -> None:
        code = Operation(module, full)
        write(code, _Rounding(code, group, parts))
        code.done()

    return compiled(written, full)


class _Rounding:
    """Rounds groups and writes them down. x: what is rounded. groups: of a row of `columns`."""

    def __init__(self, code: Operation, group: int, parts: int) -> None:
        self._code, self._parts, self.group = code, parts, group
        self.x, self._q, self._scales, self._sums = (code.buffer() for _ in range(4))
        self.columns = code.size()
        self.groups = code.b.sdiv(self.columns, number(group))

    def load(self, offset: Value) -> list[Value]:
        """A group of x, so many bytes from its beginning."""
        places = range(0, self.group * 4, VECTOR)
        source = self._code.at(self.x, offset)
        return [self._code.load(FLOATS, source, place) for place in places]

    def store(self, row: Value, place: Value, vectors: list[Value]) -> None:
        """Rounds a group; place: its number in its row."""
        code, b = self._code, self._code.b
        scale = self._scale_of(vectors)
        for part in range(self._parts):
            target = code.sum(
                code.product(code.sum(code.product(row, self._parts), part), self.groups), place
            )
            levels = self._levels(vectors, scale)
            total = of_lanes(INTS, 0)
            for n, level in enumerate(levels):
                narrow = b.trunc(level, SMALL)
                code.store(narrow, self._q, code.sum(code.product(target, self.group), n * LANES))
                total = b.add(total, level)
            code.store(scale, self._scales, code.product(target, 4))
            whole = code.call("llvm.vector.reduce.add.v16i32", I32, total)
            code.store(whole, self._sums, code.product(target, 4))
            if part + 1 < self._parts:
                step = code.splat(b.fneg(scale))
                vectors = [
                    code.fma(b.sitofp(level, FLOATS), step, vector)
                    for level, vector in zip(levels, vectors, strict=True)
                ]
                scale = b.fdiv(scale, F32(_FINER))

    def _scale_of(self, vectors: list[Value]) -> Value:
        """A 127th of the largest number, so that it becomes 127. What is no number stays so."""
        code = self._code
        largest = of_lanes(FLOATS, _SMALLEST)
        for vector in vectors:
            largest = code.largest(largest, code.call("llvm.fabs.v16f32", FLOATS, vector))
        return code.b.fdiv(code.largest_lane(largest), F32(127.0))

    def _levels(self, vectors: list[Value], scale: Value) -> list[Value]:
        """Whole numbers of steps, to the nearest; for what is no number, anything."""
        code, b = self._code, self._code.b
        inverse = code.splat(b.fdiv(F32(1.0), scale))
        whole = of_lanes(FLOATS, WHOLE)
        zero = b.bitcast(whole, INTS)
        shifted = [code.fma(vector, inverse, whole) for vector in vectors]
        return [b.sub(b.bitcast(one, INTS), zero) for one in shifted]


def _write_rounded(code: Operation, to: _Rounding) -> None:
    with code.my_share(code.product(code.rows, to.groups)) as piece:
        row, place = code.b.sdiv(piece, to.groups), code.b.srem(piece, to.groups)
        to.store(row, place, to.load(code.product(piece, to.group * 4)))


def _write_gated(code: Operation, to: _Rounding) -> None:
    b = code.b
    with code.my_share(code.product(code.rows, to.groups)) as piece:
        row, place = b.sdiv(piece, to.groups), b.srem(piece, to.groups)
        first = code.sum(code.product(row, to.columns, 2), code.product(place, to.group))
        gates, ups = (to.load(code.product(n, 4)) for n in (first, code.sum(first, to.columns)))
        gated = []
        for gate, up in zip(gates, ups, strict=True):
            below = b.fadd(exponential(code, b.fneg(gate)), of_lanes(FLOATS, 1.0))
            gated.append(b.fmul(b.fdiv(gate, below), up))
        to.store(row, place, gated)


def _write_normed(code: Operation, to: _Rounding) -> None:
    b, weight, eps = code.b, code.fixed(), code.load(F32, code.fixed())
    current = code.variable(number(-1))
    factor = code.variable(of_lanes(FLOATS, 0.0))
    with code.my_share(code.product(code.rows, to.groups)) as piece:
        row, place = b.sdiv(piece, to.groups), b.srem(piece, to.groups)
        with b.if_then(b.icmp_signed("!=", row, current.get())):
            current.set(row)
            whole = code.at(to.x, code.product(row, to.columns, 4))
            factor.set(code.splat(norm_factor(code, whole, to.columns, eps)))
        begin = code.product(place, to.group * 4)
        weights = code.at(weight, begin)
        vectors = to.load(code.product(piece, to.group * 4))
        normed = [
            b.fmul(b.fmul(vector, factor.get()), code.load(FLOATS, weights, n * VECTOR))
            for n, vector in enumerate(vectors)
        ]
        to.store(row, place, normed)
