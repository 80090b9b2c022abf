"""Conversations of our own CSV, as far as it tells them.

It does not tell what the conversation sets (settings, tags, the branch that is shown), `stop`,
`left_out`, `min_p` and `typical_p`, nor an empty text from a missing one; apostrophes that guard
formulas are taken off. A spreadsheet or pandas may have saved it again, in a form of its own.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, BinaryIO

from glm_backend.errors import ConversationUnreadable, GLMError, Phrase
from glm_backend.transfer.csv_export import TEXT_COLUMNS
from glm_backend.transfer.json_items import MOST_BYTES
from glm_backend.transfer.records import CSV_COLUMNS, OF_CONVERSATION

_INTEGERS = ("top_k", "max_new_tokens", "prompt_tokens", "completion_tokens", "rating")
_FLOATS = (
    "temperature", "top_p", "repetition_penalty", "ttft_ms", "duration_ms", "tokens_per_s",
)  # fmt: skip
_is_guarded = re.compile(r"'+ *[=+\-@\t\r]").match
_HEAD_BYTES = 16 * 1024  # more than the header takes, however it is written

csv.field_size_limit(MOST_BYTES)  # 128 KiB otherwise, for the whole process


@dataclass(frozen=True, slots=True)
class Table:
    """How a table of ours is written: by us, or by what saved it again."""

    encoding: str
    delimiter: str


def recognised(file: BinaryIO) -> Table | None:
    """How the table in `file` is written; None where the first line is no header of ours."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    lines = head.decode(encoding, "replace").splitlines()[:1]
    for delimiter in ",;\t":
        names = next(csv.reader(lines, delimiter=delimiter), [])
        if set(OF_CONVERSATION) <= set(names):
            return Table(encoding, delimiter)
    return None


def read_csv(file: BinaryIO, table: Table) -> Iterator[tuple[str, dict[str, Any] | GLMError]]:
    """The title of each conversation and its fields as in JSON, or why it cannot be read."""
    # Bytes that are no UTF-8 are kept apart, so that they cost no other conversation.
    text = io.TextIOWrapper(file, table.encoding, "surrogateescape", newline="")
    seen: set[str] = set()
    title = ""
    rows = csv.DictReader(text, strict=True, delimiter=table.delimiter)
    try:
        for conversation_id, its_rows in groupby(rows, key=lambda row: row["conversation_id"]):
            title = ""
            listed = []
            for row in its_rows:
                title = title or _text(row["conversation_title"] or "")
                listed.append(row)
            yield title, _conversation(conversation_id, title, listed, seen)
    except (csv.Error, UnicodeDecodeError) as error:
        # Whose the damaged row is cannot be known, nor where the next one begins: the conversation
        # before it is not taken by halves, and no text is taken for a row.
        reason = Phrase(
            "line {line} of the table is damaged ({error}), and nothing behind it was read",
            line=rows.reader.line_num,  # its own is that of the last good row
            error=str(error)[:200],
        )
        yield title, ConversationUnreadable(reason=reason)
    finally:
        text.detach()


def _conversation(
    its_id: str, title: str, rows: list[dict[str, str]], seen: set[str]
) -> dict[str, Any] | GLMError:
    if its_id in seen:
        reason = Phrase("its rows do not stand together; sort them as they were")
        return ConversationUnreadable(reason=reason)
    seen.add(its_id)
    try:
        title.encode()
        messages = [_message(row) for row in rows]
    except UnicodeEncodeError:
        return ConversationUnreadable(reason=Phrase("it is no UTF-8"))
    except (KeyError, TypeError, ValueError) as error:
        reason = Phrase("a row is damaged ({error})", error=str(error)[:200])
        return ConversationUnreadable(reason=reason)
    times = [message["created_at"] for message in messages]
    return {
        "id": its_id,
        "title": title,
        "created_at": min(times),
        "updated_at": max(times),
        "tags": [],
        "settings": {},
        "messages": messages,
    }


def _message(row: dict[str, str]) -> dict[str, Any]:
    if None in row:  # more cells than columns
        raise ValueError("too many cells")
    message: dict[str, Any] = {}
    for name in CSV_COLUMNS[len(OF_CONVERSATION) :]:
        cell = row[name]
        if cell and not cell.isascii():
            cell.encode()  # raises for bytes that were no UTF-8
        if name in TEXT_COLUMNS:
            message[name] = _text(cell) if cell or name == "content" else None
        else:
            message[name] = _READ.get(name, str)(cell) if cell else None
    if message["created_at"] is None:
        raise ValueError("no created_at")
    return message


def _whole_number(cell: str) -> int:
    return int(cell.removesuffix(".0"))  # where cells of a column are empty, pandas makes floats


def _seed(cell: str) -> int | None:
    """None for one that was rounded, as spreadsheets and floats do (8.12E+18)."""
    return None if "e" in cell.lower() else _whole_number(cell)


_READ: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(_INTEGERS, _whole_number),
    **dict.fromkeys(_FLOATS, float),
    "seed": _seed,
}


def _text(cell: str) -> str:
    return cell[1:] if _is_guarded(cell) else cell
