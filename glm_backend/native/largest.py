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
    numbered,
    of_lanes,
)
from glm_backend.native.compiled import compiled, is_possible

#: Each lane of numbers is told by its largest; so many numbers are a lane.
LANE = 64
#: Candidates that are put in order by comparing each with all.
_MOST = 2048
_LOWEST = -(2**31)
_NAME = "largest"


class Largest:
    """Finds the largest of up to `size` numbers. Not for several threads at once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._highest = np.empty(size // LANE + 1, np.int32)
        self._candidates = np.empty(size + LANES, np.int32)
        self._orders = np.empty(size + LANES, np.int32)
        self._places = np.empty(size // LANE + 1, np.int32)
        held = (self._highest, self._candidates, self._orders, self._places)
        self._held = [array.ctypes.data for array in held]

    def places(self, values: NDArray[np.float32], count: int) -> NDArray[np.int32] | None:
        """Where the `count` largest are, the largest first; of equal ones the first.

        values: all are numbers. What is given is good until the next call. None where it cannot:
        for more than every 64th of them, for many equal ones, for values that lie apart.
        """
        lanes = len(values) // (LANE * LANES) * LANES
        if not 0 < count < lanes or len(values) > self._size or not is_possible():
            return None
        if values.dtype != np.float32 or not values.flags.c_contiguous:
            return None
        about = (values.ctypes.data, len(values), lanes, count)
        return self._places[:count] if _function()(*about, *self._held) <= _MOST else None


@functools.cache
def _function() -> Any:
    arguments = [ctypes.c_void_p, *[ctypes.c_int64] * 3, *[ctypes.c_void_p] * 4]
    return ctypes.PYFUNCTYPE(ctypes.c_int64, *arguments)(compiled(_write, _NAME))


def _write(module: Any) -> None:
    """The `count` largest numbers are no smaller than the `count` largest of the lanes' own."""
    code = Code(module, _NAME, [PTR, I64, I64, I64, PTR, PTR, PTR, PTR], gives=I64)
    values, size, lanes, count, highest, candidates, orders, places = code.arguments
    _write_highest(code, values, lanes, highest)
    least = _threshold(code, highest, lanes, count)
    kept = (candidates, orders)
    found = _collect(code, values, size, least, kept)
    few = code.b.icmp_signed("<=", found, number(_MOST))
    with code.b.if_then(few), code.loop(number(0), found) as one:
        before = _larger(code, orders, found, one)
        with code.b.if_then(code.b.icmp_signed("<", before, count)):
            place = code.load(I32, candidates, code.product(one, 4))
            code.store(place, places, code.product(before, 4))
    code.done(found)


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
    least = code.variable(I32(_LOWEST))
    with code.loop(number(0), number(32)) as step:
        bit = b.lshr(I32(_LOWEST), b.trunc(step, I32))
        tried = b.add(least.get(), bit)  # the first one is the sign: from the lowest number to zero
        wide = code.splat(tried)
        reached = code.variable(number(0))
        with code.loop(number(0), code.product(lanes, 4), VECTOR) as along:
            over = b.icmp_signed(">=", code.load(INTS, highest, along), wide)
            reached.set(b.add(reached.get(), _how_many(code, over)))
        least.set(b.select(b.icmp_signed(">=", reached.get(), count), tried, least.get()))
    return code.splat(least.get())


def _how_many(code: Code, mask: Value) -> Value:
    return code.call("llvm.ctpop.i64", I64, _bits(code, mask))


def _bits(code: Code, mask: Value) -> Value:
    return code.b.zext(code.b.bitcast(mask, I16), I64)


def _collect(
    code: Code, values: Value, size: Value, least: Value, kept: tuple[Value, Value]
) -> Value:
    """The places of all numbers that reach the threshold, and their orders; gives how many.

    Behind the orders is a vector of such as no number has, for who reads whole vectors.
    """
    candidates, orders = kept
    b = code.b
    count = code.variable(number(0))

    def keep(place: Value) -> None:
        here = code.product(count.get(), 4)
        value = code.splat(code.load(F32, values, code.product(place, 4)))
        order = b.extract_element(_in_order(code, value), I32(0))
        code.store(b.trunc(place, I32), candidates, here)
        code.store(order, orders, here)
        count.set(b.add(count.get(), number(1)))

    whole = b.and_(size, number(-LANES))
    with code.loop(number(0), whole, LANES) as begin:
        value = code.load(FLOATS, values, code.product(begin, 4))
        over = b.icmp_signed(">=", _in_order(code, value), least)
        bits = code.variable(_bits(code, over))
        with code.loop(number(0), _how_many(code, over)):
            keep(b.add(begin, code.call("llvm.cttz.i64", I64, bits.get(), I1(1))))
            bits.set(b.and_(bits.get(), b.sub(bits.get(), number(1))))
    with code.loop(whole, size) as place:
        value = code.splat(code.load(F32, values, code.product(place, 4)))
        over = b.icmp_signed(">=", _in_order(code, value), least)
        with b.if_then(b.extract_element(over, I32(0))):
            keep(place)
    code.store(of_lanes(INTS, _LOWEST), orders, code.product(count.get(), 4))
    return count.get()


def _larger(code: Code, orders: Value, found: Value, one: Value) -> Value:
    """How many are larger than one of them, or equal and before it: the place where it belongs."""
    b = code.b
    mine = code.splat(code.load(I32, orders, code.product(one, 4)))
    larger = code.variable(number(0))
    with code.loop(number(0), found, LANES) as begin:
        others = code.load(INTS, orders, code.product(begin, 4))
        before = b.icmp_signed("<", numbered(), code.splat(b.trunc(b.sub(one, begin), I32)))
        equal = b.and_(b.icmp_signed("==", others, mine), before)
        over = b.or_(b.icmp_signed(">", others, mine), equal)
        larger.set(b.add(larger.get(), _how_many(code, over)))
    return larger.get()
