"""Rows of a table by their numbers: embeddings of tokens, and the rows whose logits are wanted."""

from __future__ import annotations

import functools
from typing import Any

import torch

from glm_backend.native.code import I64, LANES, Operation, number
from glm_backend.native.compiled import compiled
from glm_backend.native.functions import wide_numbers

#: Types that a table may have.
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@functools.cache
def gathered(dtype: torch.dtype) -> int:
    """The address of the operation that copies rows of a table: y[row] = table[number of row].

    Buffers: the table, [any, columns] of the type; the numbers, int64 [rows]; y, float32 [rows,
    columns]. Sizes: columns, a multiple of 16.
    """
    name = f"gathered_{str(dtype).rpartition('.')[2]}"
    return compiled(functools.partial(_write, name, dtype), name)


def _write(name: str, dtype: torch.dtype, module: Any) -> None:
    code = Operation(module, name)
    table, numbers, y = (code.buffer() for _ in range(3))
    columns = code.size()
    with code.my_share(code.rows) as row:
        wanted = code.load(I64, numbers, code.product(row, 8))
        source = code.at(table, code.product(wanted, columns, dtype.itemsize))
        target = code.at(y, code.product(row, columns, 4))
        with code.loop(number(0), columns, LANES) as place:
            some = wide_numbers(code, dtype, source, code.product(place, dtype.itemsize))
            code.store(some, target, code.product(place, 4))
    code.done()
