"""JSON: whole conversations with everything that is known of them, so that nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from glm_backend.store import ConversationFilter, Store
from glm_backend.store.columns import timestamp_text
from glm_backend.transfer.records import FORMAT, MESSAGE_FIELDS, VERSION

_CHUNK_CHARACTERS = 64 * 1024

_CONVERSATION_COLUMNS = (
    "conversation_id",
    "conversation_title",
    "user",
    "conversation_created_at",
    "conversation_updated_at",
    "conversation_settings",
    "conversation_head_id",
)
_COLUMNS = (*_CONVERSATION_COLUMNS, *MESSAGE_FIELDS)
_MESSAGE = len(_CONVERSATION_COLUMNS)  # where a row's message begins, with its id
_STOP = MESSAGE_FIELDS.index("stop")
_TEMPLATE = "{" + ",".join(f'"{name}":%s' for name in MESSAGE_FIELDS) + "}"

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def export_json(
    store: Store,
    user_id: str,
    conversation_ids: Sequence[str] | None = None,
    filter: ConversationFilter | None = None,
) -> Iterator[bytes]:
    """The user's conversations as chunks of one JSON document, read as they are taken.

    conversation_ids, filter: only these. Raises UnknownConversation at once.
    """
    ids = store.select_conversations(user_id, conversation_ids, filter or ConversationFilter())
    head = {"format": FORMAT, "version": VERSION, "exported_at": timestamp_text(store.now())}
    return _chunks(_document(head, store.stream(user_id, ids, _COLUMNS)))


def _document(head: dict[str, object], rows: Iterator[Sequence[Any]]) -> Iterator[str]:
    """The document in pieces, a message a line."""
    yield f'{_opened(head)},"conversations":['
    between = "\n"
    for _, its_rows in groupby(rows, key=itemgetter(0)):
        yield between
        yield from _conversation(its_rows)
        between = ",\n"
    yield "\n]}\n"


def _conversation(rows: Iterator[Sequence[Any]]) -> Iterator[str]:
    first = next(rows)
    its = dict(zip(_COLUMNS, first, strict=True))
    record = {
        "id": its["conversation_id"],
        "title": its["conversation_title"],
        "user": its["user"],
        "created_at": its["conversation_created_at"],
        "updated_at": its["conversation_updated_at"],
        "tags": [],
        "settings": json.loads(its["conversation_settings"]),
        "head_id": its["conversation_head_id"],
    }
    yield f'{_opened(record)},"messages":['
    between = "\n"
    for row in chain([first], rows):
        if row[_MESSAGE] is not None:  # None: a conversation without messages
            yield between + _message(row)
            between = ",\n"
    yield "]}"


def _message(row: Sequence[Any]) -> str:
    """The message as JSON. Filling in a template takes half the time of encoding a dict."""
    values = [_encoded(value) for value in row[_MESSAGE:]]
    values[_STOP] = row[_MESSAGE + _STOP] or "null"  # is kept as JSON
    return _TEMPLATE % tuple(values)


def _encoded(value: str | float | None) -> str:
    if isinstance(value, str):
        return _encode(value)
    return "null" if value is None else repr(value)


def _opened(record: dict[str, object]) -> str:
    """The JSON object without its closing brace, for more to follow."""
    return _encode(record)[:-1]


def _chunks(pieces: Iterator[str]) -> Iterator[bytes]:
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > _CHUNK_CHARACTERS:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()
