"""Draws one of several numbers: with a Gumbel number of its own added to each, the largest."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_backend.native.code import (
    F32,
    FLOATS,
    I32,
    I64,
    INTS,
    LANES,
    PTR,
    Code,
    Value,
    number,
    numbered,
    of_lanes,
)
from glm_backend.native.compiled import compiled
from glm_backend.native.functions import logarithm

_NAME = "drawn"


def drawn(
    values: NDArray[np.float32], ids: NDArray[np.int32], words: tuple[np.uint32, np.uint32]
) -> int:
    """Which of the values is drawn: its place. ids, words: see `_gumbel` in engine/sampler.py.

    There is at least one; only where kernels are possible.
    """
    values, ids = np.ascontiguousarray(values, np.float32), np.ascontiguousarray(ids, np.int32)
    about = (values.ctypes.data, ids.ctypes.data, len(ids), *(int(word) for word in words))
    return int(_function()(*about))


@functools.cache
def _function() -> Any:
    arguments = [*[ctypes.c_void_p] * 2, ctypes.c_int64, *[ctypes.c_uint32] * 2]
    return ctypes.PYFUNCTYPE(ctypes.c_int64, *arguments)(compiled(_write, _NAME))


def _write(module: Any) -> None:
    code = Code(module, _NAME, [PTR, PTR, I64, I32, I32], gives=I64)
    b = code.b
    values, ids, count, *words = code.arguments
    first, second = (code.splat(word) for word in words)
    best = code.variable(of_lanes(FLOATS, float("-inf")))
    where = code.variable(of_lanes(INTS, 0))

    def consider(value: Value, its_id: Value, place: Value) -> None:
        score = b.fadd(value, _gumbel(code, its_id, first, second))
        better = b.fcmp_ordered(">", score, best.get())
        best.set(b.select(better, score, best.get()))
        where.set(b.select(better, place, where.get()))

    whole = b.and_(count, number(-LANES))
    with code.loop(number(0), whole, LANES) as begin:
        along = code.product(begin, 4)
        places = b.add(code.splat(b.trunc(begin, I32)), numbered())
        consider(code.load(FLOATS, values, along), code.load(INTS, ids, along), places)
    with code.loop(whole, count) as place:
        along = code.product(place, 4)
        value, its_id = code.load(F32, values, along), code.load(I32, ids, along)
        consider(code.splat(value), code.splat(its_id), code.splat(b.trunc(place, I32)))
    top = code.splat(code.largest_lane(best.get()))
    here = b.select(b.fcmp_ordered("==", best.get(), top), where.get(), of_lanes(INTS, 2**31 - 1))
    code.done(b.sext(code.call("llvm.vector.reduce.smin.v16i32", I32, here), I64))


def _gumbel(code: Code, its_id: Value, first: Value, second: Value) -> Value:
    b = code.b

    def mixed(bits: Value, shift: int) -> Value:
        return b.xor(bits, b.lshr(bits, of_lanes(INTS, shift)))

    def times(bits: Value, factor: int) -> Value:
        return b.mul(bits, of_lanes(INTS, factor))

    bits = b.xor(times(its_id, 0x9E3779B1), first)
    bits = times(mixed(bits, 16), 0x85EBCA6B)
    bits = times(mixed(bits, 13), 0xC2B2AE35)
    bits = times(b.xor(mixed(bits, 16), second), 0x846CA68B)
    high = b.lshr(mixed(bits, 16), of_lanes(INTS, 9))
    half = b.fadd(b.sitofp(high, FLOATS), of_lanes(FLOATS, 0.5))
    uniform = b.fmul(half, of_lanes(FLOATS, 2.0**-23))
    return b.fneg(logarithm(code, b.fneg(logarithm(code, uniform))))
