"""CSV: one row a message, for people with a spreadsheet and for pandas.

RFC 4180, UTF-8. A text that a spreadsheet would take for a formula gets an apostrophe in front
(OWASP, "CSV Injection"); numbers and times stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from glm_backend.store import ConversationFilter, Store
from glm_backend.transfer.records import CSV_COLUMNS

_CHUNK_CHARACTERS = 64 * 1024
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"  # without it Excel takes UTF-8 for something else

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
_MESSAGE_ID = CSV_COLUMNS.index("message_id")
_IS_TEXT = [name in TEXT_COLUMNS for name in CSV_COLUMNS]
_looks_like_formula = re.compile(r" *[=+\-@\t\r]").match


def export_csv(
    store: Store,
    user_id: str,
    conversation_ids: Sequence[str] | None = None,
    filter: ConversationFilter | None = None,
    *,
    bom: bool = False,
) -> Iterator[bytes]:
    """The user's messages as chunks of one CSV file, read as they are taken.

    conversation_ids, filter: only these conversations. bom: for Excel.
    Raises UnknownConversation at once, before the first chunk.
    """
    ids = store.select_conversations(user_id, conversation_ids, filter or ConversationFilter())
    return _chunks(store.stream(user_id, ids, CSV_COLUMNS), bom=bom)


def _chunks(rows: Iterator[Sequence[Any]], *, bom: bool) -> Iterator[bytes]:
    held = [_BOM if bom else "", _line(CSV_COLUMNS)]
    size = 0
    for row in rows:
        if row[_MESSAGE_ID] is None:
            continue  # a conversation without messages
        line = _line(map(_cell, row, _IS_TEXT))
        held.append(line)
        size += len(line)
        if size > _CHUNK_CHARACTERS:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()


def _line(cells: Iterable[str]) -> str:
    return ",".join(cells) + "\r\n"


def _cell(value: object, is_text: bool) -> str:
    """One cell. Texts are always quoted: to look first whether they must be, as the module csv
    does character by character, takes longer than all the rest."""
    if value is None:
        return ""
    text = str(value)
    if not is_text:
        return text
    if _looks_like_formula(text):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"'
