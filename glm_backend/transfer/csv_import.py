"""Conversations of our own CSV, as far as it tells them.

It does not tell what the conversation sets (settings, tags, the branch that is shown), `stop`,
`left_out`, `min_p` and `typical_p`, nor an empty text from a missing one; apostrophes that guard
formulas are taken off.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, BinaryIO

from glm_backend.errors import ConversationUnreadable, GLMError, Phrase
from glm_backend.transfer.csv_export import TEXT_COLUMNS
from glm_backend.transfer.json_items import MOST_BYTES
from glm_backend.transfer.records import CSV_COLUMNS, OF_CONVERSATION

_INTEGERS = ("top_k", "max_new_tokens", "seed", "prompt_tokens", "completion_tokens", "rating")
_FLOATS = (
    "temperature", "top_p", "repetition_penalty", "ttft_ms", "duration_ms", "tokens_per_s",
)  # fmt: skip
_READ: Mapping[str, Any] = dict.fromkeys(_INTEGERS, int) | dict.fromkeys(_FLOATS, float)
_is_guarded = re.compile(r"'+ *[=+\-@\t\r]").match

#: What a CSV of ours begins with.
BEGINS = ",".join(CSV_COLUMNS[:3]).encode()

csv.field_size_limit(MOST_BYTES)  # 128 KiB otherwise, for the whole process


def read_csv(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any] | GLMError]]:
    """The title of each conversation and its fields as in JSON, or why it cannot be read."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    seen: set[str] = set()
    try:
        rows = csv.DictReader(text, strict=True)
        for conversation_id, its_rows in groupby(rows, key=lambda row: row["conversation_id"]):
            listed = list(its_rows)
            title = _text(listed[0].get("conversation_title") or "")
            yield title, _conversation(conversation_id, title, listed, seen)
    except (csv.Error, UnicodeDecodeError, KeyError) as error:
        reason = Phrase("the table is damaged, or no UTF-8 ({error})", error=str(error)[:200])
        yield "", ConversationUnreadable(reason=reason)
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
        messages = [_message(row) for row in rows]
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
        if name in TEXT_COLUMNS:
            message[name] = _text(cell) if cell or name == "content" else None
        else:
            message[name] = _READ.get(name, str)(cell) if cell else None
    if message["created_at"] is None:
        raise ValueError("no created_at")
    return message


def _text(cell: str) -> str:
    return cell[1:] if _is_guarded(cell) else cell
