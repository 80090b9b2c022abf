"""Functions of vectors that several operations need."""

from __future__ import annotations

import math

import torch

from glm_backend.native.code import (
    F32,
    FLOATS,
    HALVES,
    INTS,
    SHORTS,
    VECTOR,
    Code,
    Value,
    number,
    of_lanes,
)

#: Added to a number of less than 2^22, it leaves the nearest whole number in the lowest bits: there
#: float32 has steps of 1.
WHOLE = 1.5 * 2**23
#: Beyond these the result is not told from the largest, or the smallest.
_HIGHEST, _LOWEST = 88.7, -87.3
#: The logarithm of 2 in two parts, so that a multiple of it can be taken away exactly (Cody and
#: Waite 1980).
_LOG2_HIGH, _LOG2_LOW = 0.693359375, -2.12194440e-4
#: Of exp(x) around zero, behind 1 + x: the next terms of its series, as float32 gives them.
_TERMS = [1 / math.factorial(n) for n in (7, 6, 5, 4, 3, 2)]
#: Of 2 * artanh(x) / x, and the bits of the square root of a half.
_ODD_TERMS = [2 / n for n in (9, 7, 5, 3, 1)]
_HALF_ROOT_BITS = 0x3F3504F3


def exponential(code: Code, x: Value) -> Value:
    """e to the power of each lane, to some units in the last place; what is no number stays so."""
    b = code.b
    low = code.largest(x, of_lanes(FLOATS, _LOWEST))
    x = code.call("llvm.minimum.v16f32", FLOATS, low, of_lanes(FLOATS, _HIGHEST))
    shifted = code.fma(x, of_lanes(FLOATS, 1 / math.log(2)), of_lanes(FLOATS, WHOLE))
    power = b.fsub(shifted, of_lanes(FLOATS, WHOLE))
    rest = code.fma(power, of_lanes(FLOATS, -_LOG2_HIGH), x)
    rest = code.fma(power, of_lanes(FLOATS, -_LOG2_LOW), rest)
    first, *others = _TERMS
    series = of_lanes(FLOATS, first)
    for term in [*others, 1.0, 1.0]:
        series = code.fma(series, rest, of_lanes(FLOATS, term))
    exponent = b.shl(b.bitcast(shifted, INTS), of_lanes(INTS, 23))
    result = b.bitcast(b.add(b.bitcast(series, INTS), exponent), FLOATS)
    return b.select(b.fcmp_unordered("uno", x, x), x, result)


def logarithm(code: Code, x: Value) -> Value:
    """The natural logarithm of each lane, to some units in the last place; all are normal numbers.

    With x = 2^n * m and m around 1, log(m) = 2 * artanh((m - 1) / (m + 1)).
    """
    b, one = code.b, of_lanes(FLOATS, 1.0)
    # m is from sqrt(1/2) to sqrt(2): bits of float32 grow with the number, from there on too.
    above = b.sub(b.bitcast(x, INTS), of_lanes(INTS, _HALF_ROOT_BITS))
    power = b.sitofp(b.ashr(above, of_lanes(INTS, 23)), FLOATS)
    rest = b.and_(above, of_lanes(INTS, 2**23 - 1))
    m = b.bitcast(b.add(rest, of_lanes(INTS, _HALF_ROOT_BITS)), FLOATS)
    ratio = b.fdiv(b.fsub(m, one), b.fadd(m, one))
    square = b.fmul(ratio, ratio)
    first, *others = _ODD_TERMS
    series = of_lanes(FLOATS, first)
    for term in others:
        series = code.fma(series, square, of_lanes(FLOATS, term))
    small = code.fma(power, of_lanes(FLOATS, _LOG2_LOW), b.fmul(series, ratio))
    return code.fma(power, of_lanes(FLOATS, _LOG2_HIGH), small)


def norm_factor(code: Code, row: Value, columns: Value, eps: Value) -> Value:
    """What root mean square norm (Zhang and Sennrich 2019) multiplies a row of float32 by."""
    b = code.b
    total = code.variable(of_lanes(FLOATS, 0.0))
    with code.loop(number(0), code.product(columns, 4), VECTOR) as offset:
        vector = code.load(FLOATS, row, offset)
        total.set(code.fma(vector, vector, total.get()))
    mean = b.fdiv(code.sum_of_lanes(total.get()), b.sitofp(columns, F32))
    root = code.call("llvm.sqrt.f32", F32, b.fadd(mean, eps))
    return b.fdiv(F32(1.0), root)


def wide_numbers(code: Code, dtype: torch.dtype, pointer: Value, offset: Value | int) -> Value:
    """16 numbers of a type of 32 or 16 bits, as float32."""
    b = code.b
    if dtype is torch.float32:
        return code.load(FLOATS, pointer, offset)
    if dtype is torch.float16:
        return b.fpext(code.load(HALVES, pointer, offset), FLOATS)
    wide = b.zext(code.load(SHORTS, pointer, offset), INTS)  # bfloat16 is float32 cut off
    return b.bitcast(b.shl(wide, of_lanes(INTS, 16)), FLOATS)
