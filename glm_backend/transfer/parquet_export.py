"""Parquet: one row a message, typed, for data frames and training data.

https://parquet.apache.org/docs/file-format/. The columns are those of the CSV and what JSON has
of a message beside them; texts are as they were written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from glm_backend.transfer.records import CSV_COLUMNS, MESSAGE_FIELDS, OF_CONVERSATION
from glm_backend.transfer.source import Outlet, Source

#: A row group is what is in memory, and what a reader can skip.
_GROUP_ROWS = 5_000
_GROUP_CHARACTERS = 8_000_000

_INTEGERS = (
    "turn", "branch", "top_k", "max_new_tokens", "seed", "prompt_tokens", "completion_tokens",
    "rating", "left_out",
)  # fmt: skip
_FLOATS = (
    "temperature", "top_p", "repetition_penalty", "ttft_ms", "duration_ms", "tokens_per_s",
    "min_p", "typical_p",
)  # fmt: skip
_TYPES = {
    **dict.fromkeys(_INTEGERS, pa.int64()),
    **dict.fromkeys(_FLOATS, pa.float64()),
    "created_at": pa.timestamp("us", tz="UTC"),
    "stop": pa.list_(pa.string()),
}
_READ = {"created_at": datetime.fromisoformat, "stop": json.loads}

PARQUET_COLUMNS = (*CSV_COLUMNS, *MESSAGE_FIELDS[len(CSV_COLUMNS) - len(OF_CONVERSATION) :])
SCHEMA = pa.schema([(name, _TYPES.get(name, pa.string())) for name in PARQUET_COLUMNS])
_CONTENT = PARQUET_COLUMNS.index("content")


def write_parquet(source: Source) -> Iterator[bytes]:
    """The messages in groups of rows, each written as soon as it is full."""
    out = Outlet()
    with pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer:
        for rows in _groups(source):
            writer.write_table(_table(rows), row_group_size=len(rows))
            yield out.take()
    yield out.take()


def _groups(source: Source) -> Iterator[list[Sequence[Any]]]:
    rows: list[Sequence[Any]] = []
    characters = 0
    for conversation, portions in source.read(MESSAGE_FIELDS):
        beginning = tuple(conversation[name] for name in OF_CONVERSATION.values())
        for row in chain.from_iterable(portions):
            whole = beginning + tuple(row)
            rows.append(whole)
            characters += len(whole[_CONTENT])
            if len(rows) >= _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
                yield rows
                rows, characters = [], 0
    if rows:
        yield rows


def _table(rows: Sequence[Sequence[Any]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [_array(field, values) for field, values in zip(SCHEMA, columns, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _array(field: pa.Field, values: Sequence[Any]) -> pa.Array:
    if read := _READ.get(field.name):
        values = [None if value is None else read(value) for value in values]
    return pa.array(values, field.type)
