"""JSON: whole conversations with everything that is known of them, so that nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson

from glm_backend.store.stream import Rows
from glm_backend.transfer.records import FORMAT, MESSAGE_FIELDS, VERSION
from glm_backend.transfer.source import Source, chunked

#: Half of all messages are questions, of which nothing is known between status and created_at, nor
#: behind it: that part is written once.
_CREATED_AT = MESSAGE_FIELDS.index("created_at")
_OF_ANSWER = slice(MESSAGE_FIELDS.index("status") + 1, _CREATED_AT)
_BEFORE = MESSAGE_FIELDS[: _OF_ANSWER.start]
_NOTHING = (None,) * len(MESSAGE_FIELDS[_OF_ANSWER])
_NOTHING_MORE = (None,) * len(MESSAGE_FIELDS[_CREATED_AT + 1 :])
_WITHOUT_ANSWER = b"," + orjson.dumps(
    dict.fromkeys(MESSAGE_FIELDS[_OF_ANSWER.start :]) | {"created_at": "%b"}
).removeprefix(b"{")

_VERSION_OF_LINE = {"format": FORMAT, "version": VERSION}


def write_json(source: Source) -> Iterator[bytes]:
    """One document, a message a line."""
    return chunked(_document(source))


def write_jsonl(source: Source) -> Iterator[bytes]:
    """A conversation a line, each as in the document but that it names the form itself."""
    return chunked(_lines(source))


def _document(source: Source) -> Iterator[bytes]:
    head = _VERSION_OF_LINE | {"exported_at": source.now()}
    yield _opened(head) + b',"conversations":['
    between = b"\n"
    for conversation, portions in source.read(MESSAGE_FIELDS):
        yield between + _opened(_record(conversation)) + b',"messages":['
        yield from _messages(portions, first=b"\n", between=b",\n")
        yield b"]}"
        between = b",\n"
    yield b"\n]}\n"


def _lines(source: Source) -> Iterator[bytes]:
    for conversation, portions in source.read(MESSAGE_FIELDS):
        yield _opened(_VERSION_OF_LINE | _record(conversation)) + b',"messages":['
        yield from _messages(portions, first=b"", between=b",")
        yield b"]}\n"


def _record(conversation: dict[str, Any]) -> dict[str, Any]:
    """What is said of a conversation, in the order of docs/export.schema.json."""
    return {
        "id": conversation["id"],
        "title": conversation["title"],
        "user": conversation["user"],
        "created_at": conversation["created_at"],
        "updated_at": conversation["updated_at"],
        "tags": conversation["tags"],
        "settings": _kept_json(conversation["settings"]),
        "head_id": conversation["head_id"],
        "pinned": conversation["pinned"],
        "archived_at": conversation["archived_at"],
        "source": conversation["source"],
        "forked_from": conversation["forked_from"],
    }


def _messages(portions: Iterator[Rows], *, first: bytes, between: bytes) -> Iterator[bytes]:
    lead = first
    for rows in portions:
        yield lead
        yield between.join([_message(row) for row in rows])
        lead = between


def _message(row: Sequence[Any]) -> bytes:
    if row[_OF_ANSWER] == _NOTHING and row[_CREATED_AT + 1 :] == _NOTHING_MORE:
        question = orjson.dumps(dict(zip(_BEFORE, row, strict=False)))
        created_at: str = row[_CREATED_AT]
        return question[:-1] + _WITHOUT_ANSWER % created_at.encode()
    message = dict(zip(MESSAGE_FIELDS, row, strict=True))
    if message["stop"] is not None:
        message["stop"] = _kept_json(message["stop"])
    return orjson.dumps(message)


@lru_cache(maxsize=64)
def _kept_json(text: str) -> orjson.Fragment:
    """What the store keeps as JSON already, in the narrow form of all the rest.

    By the module json, whose whole numbers are as long as they need be.
    """
    narrow = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    return orjson.Fragment(narrow)


def _opened(record: dict[str, Any]) -> bytes:
    """The JSON object without its closing brace, for more to follow."""
    return orjson.dumps(record)[:-1]
