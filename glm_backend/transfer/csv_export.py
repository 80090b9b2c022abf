"""CSV: one row a message, for people with a spreadsheet and for pandas.

RFC 4180, UTF-8. A text that a spreadsheet would take for a formula gets an apostrophe in front
(OWASP, "CSV Injection"), and so does one that looks as if it had one; numbers and times stay as
they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from glm_backend.transfer.records import CSV_COLUMNS, OF_CONVERSATION
from glm_backend.transfer.source import Source, chunked

_ROWS_AT_ONCE = 64
_FEW = 64  # different texts of a column that are remembered

#: Columns in which a person, a model or another program may have written anything.
TEXT_COLUMNS = (
    "conversation_title",
    "user",
    "content",
    "model",
    "quantization",
    "system_prompt",
    "finish_reason",
    "error",
    "comment",
)
#: Columns that never need quotes: ids, words of ours, times.
_PLAIN_COLUMNS = ("message_id", "role", "status", "created_at")
_COLUMNS = CSV_COLUMNS[len(OF_CONVERSATION) :]
_FORMULA_BEGINS = frozenset("' =+-@\t\r")
_Maker = Callable[[Iterable[Any]], Iterable[str]]

_looks_like_formula = re.compile(r"'* *[=+\-@\t\r]").match


def write_csv(source: Source) -> Iterator[bytes]:
    """The messages under a header."""
    return chunked(_lines(source))


def _lines(source: Source) -> Iterator[bytes]:
    yield (",".join(CSV_COLUMNS) + "\r\n").encode()
    makers = [_maker(column) for column in _COLUMNS]
    beginnings: list[str] = []
    rows: list[Sequence[Any]] = []
    for conversation, portions in source.read(_COLUMNS):
        beginning = ",".join(
            (conversation["id"], _text(conversation["title"]), _text(conversation["user"]))
        )
        for portion in portions:
            rows += portion
            beginnings += [beginning] * len(portion)
            if len(rows) >= _ROWS_AT_ONCE:
                yield _encoded(makers, beginnings, rows)
                beginnings, rows = [], []
    if rows:
        yield _encoded(makers, beginnings, rows)


def _encoded(
    makers: Sequence[_Maker], beginnings: Sequence[str], rows: Sequence[Sequence[Any]]
) -> bytes:
    """Rows as lines. Column by column, because most columns hold few different values."""
    columns = [make(values) for make, values in zip(makers, zip(*rows, strict=True), strict=True)]
    lines = map(",".join, zip(beginnings, *columns, strict=True))
    return ("\r\n".join(lines) + "\r\n").encode()


def _text(text: str | None) -> str:
    """A cell that may hold anything. Always in quotes: to look first whether it must be takes
    longer than all the rest."""
    if text is None:
        return ""
    if text[:1] in _FORMULA_BEGINS and _looks_like_formula(text):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"'


class _FewTexts(dict[str | None, str]):
    """Cells of a column in which the same texts come again and again."""

    def __missing__(self, text: str | None) -> str:
        if len(self) >= _FEW:
            self.clear()
        self[text] = cell = _text(text)
        return cell


def _texts(values: Iterable[str | None]) -> Iterable[str]:
    return map(_text, values)


def _numbers(values: Iterable[Any]) -> Iterable[str]:
    # A list of numbers in JSON is their cells already, and written several times as fast.
    listed = orjson.dumps(values).decode()
    return listed[1:-1].replace("null", "").split(",")


def _plain(values: Iterable[str]) -> Iterable[str]:
    return values


def _plain_or_none(values: Iterable[str | None]) -> Iterable[str]:
    return [value or "" for value in values]


def _maker(column: str) -> _Maker:
    """What makes cells of this column's values."""
    if column in _PLAIN_COLUMNS:
        return _plain
    if column == "parent_id":
        return _plain_or_none
    if column == "content":
        return _texts
    if column in TEXT_COLUMNS:
        few = _FewTexts().__getitem__
        return lambda values: map(few, values)
    return _numbers
