"""The largest of many numbers: what a token is drawn from, out of a whole vocabulary."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glm_backend.native.code import (
    F32,
    FLOATS,
    I1,
    I16,
    I32,
    I64,
    INTS,
    LANES,
    PTR,
    VECTOR,
    Code,
    Value,
    number,
    of_lanes,
)
from glm_backend.native.compiled import compiled, is_possible

#: Each lane of numbers is told by its largest; so many numbers are a lane.
LANE = 64
_NAME = "largest"


class Largest:
    """Finds candidates among rows of `size` numbers. Not for several threads at once."""

    def __init__(self, size: int) -> None:
        self._lanes = size // (LANE * LANES) * LANES
        self._size = size
        self._highest = np.empty(max(1, self._lanes), np.float32)
        self._places = np.empty(size, np.int32)
        self._found = np.zeros(1, np.int64)
        held = (self._highest, self._places, self._found)
        self._held = [array.ctypes.data for array in held]

    def fits(self, values: NDArray[np.float32], count: int) -> bool:
        """Whether it can look for so many among these, on this processor."""
        whole = values.shape == (self._size,) and values.flags.c_contiguous
        found = whole and values.dtype == np.float32 and 0 < count < self._lanes
        return found and is_possible()

    def candidates(self, values: NDArray[np.float32], count: int) -> NDArray[np.int32]:
        """Places, in order, among which the `count` largest are, and few others.

        values: all are numbers. What is given is good until the next call.
        """
        _function()(values.ctypes.data, self._size, self._lanes, count, *self._held)
        return self._places[: int(self._found[0])]


@functools.cache
def _function() -> Any:
    arguments = [ctypes.c_void_p, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 3]
    return ctypes.PYFUNCTYPE(None, *arguments)(compiled(_write, _NAME))


def _write(module: Any) -> None:
    """The `count` largest numbers are no smaller than the `count` largest of the lanes' own."""
    code = Code(module, _NAME, [PTR, I64, I64, I64, PTR, PTR, PTR])
    values, size, lanes, count, highest, places, found = code.arguments
    _write_highest(code, values, lanes, highest)
    least = _threshold(code, highest, lanes, count)
    code.store(_collect(code, values, size, least, places), found)
    code.done()


def _write_highest(code: Code, values: Value, lanes: Value, highest: Value) -> None:
    """The largest of each lane, as a whole number of the same order."""
    b = code.b
    with code.loop(number(0), code.product(lanes, 4), VECTOR) as along:
        top = code.variable(of_lanes(FLOATS, float("-inf")))
        with code.loop(number(0), number(LANE)) as row:
            place = code.sum(code.product(row, lanes, 4), along)
            value = code.load(FLOATS, values, place)
            top.set(b.select(b.fcmp_ordered(">", value, top.get()), value, top.get()))
        code.store(_in_order(code, top.get()), highest, along)


def _in_order(code: Code, value: Value) -> Value:
    """Floats as whole numbers that are in the same order: the negative ones turned around."""
    b = code.b
    bits = b.bitcast(value, INTS)
    sign = b.ashr(bits, of_lanes(INTS, 31))
    return b.xor(bits, b.lshr(sign, of_lanes(INTS, 1)))


def _threshold(code: Code, highest: Value, lanes: Value, count: Value) -> Value:
    """The largest whole number that `count` lanes reach, found bit by bit; as a vector."""
    b = code.b
    least = code.variable(I32(-(2**31)))
    with code.loop(number(0), number(32)) as step:
        bit = b.lshr(I32(-(2**31)), b.trunc(step, I32))
        tried = b.add(least.get(), bit)  # the first one is the sign: from the lowest number to zero
        wide = code.splat(tried)
        reached = code.variable(number(0))
        with code.loop(number(0), code.product(lanes, 4), VECTOR) as along:
            over = b.icmp_signed(">=", code.load(INTS, highest, along), wide)
            reached.set(b.add(reached.get(), _how_many(code, over)))
        least.set(b.select(b.icmp_signed(">=", reached.get(), count), tried, least.get()))
    return code.splat(least.get())


def _how_many(code: Code, mask: Value) -> Value:
    b = code.b
    bits = b.bitcast(mask, I16)
    return b.zext(code.call("llvm.ctpop.i16", I16, bits), I64)


def _collect(code: Code, values: Value, size: Value, least: Value, places: Value) -> Value:
    """The places of all numbers that reach the threshold; gives how many."""
    b = code.b
    count = code.variable(number(0))
    whole = b.and_(size, number(-LANES))
    with code.loop(number(0), whole, LANES) as begin:
        value = code.load(FLOATS, values, code.product(begin, 4))
        over = b.icmp_signed(">=", _in_order(code, value), least)
        bits = code.variable(b.zext(b.bitcast(over, I16), I64))
        with code.loop(number(0), _how_many(code, over)):
            lane = code.call("llvm.cttz.i64", I64, bits.get(), I1(1))
            code.store(b.trunc(b.add(begin, lane), I32), places, code.product(count.get(), 4))
            count.set(b.add(count.get(), number(1)))
            bits.set(b.and_(bits.get(), b.sub(bits.get(), number(1))))
    with code.loop(whole, size) as place:
        value = code.splat(code.load(F32, values, code.product(place, 4)))
        over = b.extract_element(b.icmp_signed(">=", _in_order(code, value), least), I32(0))
        code.store(b.trunc(place, I32), places, code.product(count.get(), 4))
        count.set(b.add(count.get(), b.zext(over, I64)))
    return count.get()
