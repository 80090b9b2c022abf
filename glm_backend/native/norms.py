"""Norms of what a block adds, which only some families have (GLM-4-0414)."""

from __future__ import annotations

import functools
from typing import Any

from glm_backend.native.code import F32, FLOATS, VECTOR, Operation, number
from glm_backend.native.compiled import compiled
from glm_backend.native.functions import norm_factor


@functools.cache
def added_normed() -> int:
    """The address of the operation that adds the root mean square norm of x to y.

    Buffers: x, y, float32 [rows, columns]. Fixed: the weight of the norm, float32 [columns], and
    its epsilon. Sizes: columns, a multiple of 16.
    """
    return compiled(_write, "added_normed")


def _write(module: Any) -> None:
    code = Operation(module, "added_normed")
    b, x, y = code.b, code.buffer(), code.buffer()
    weight, eps = code.fixed(), code.load(F32, code.fixed())
    columns = code.size()
    with code.my_share(code.rows) as row:
        along = code.product(row, columns, 4)
        source, target = code.at(x, along), code.at(y, along)
        factor = code.splat(norm_factor(code, source, columns, eps))
        with code.loop(number(0), code.product(columns, 4), VECTOR) as place:
            normed = b.fmul(code.load(FLOATS, source, place), factor)
            normed = b.fmul(normed, code.load(FLOATS, weight, place))
            code.store(b.fadd(code.load(FLOATS, target, place), normed), target, place)
    code.done()
