"""JSON: whole conversations with everything that is known of them, so that nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import orjson

from glm_backend.transfer.records import FORMAT, MESSAGE_FIELDS, VERSION
from glm_backend.transfer.source import Source, chunked

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
        lead = b"\n"
        for rows in portions:
            yield lead + b",\n".join([orjson.dumps(_message(row)) for row in rows])
            lead = b",\n"
        yield b"]}"
        between = b",\n"
    yield b"\n]}\n"


def _lines(source: Source) -> Iterator[bytes]:
    for conversation, portions in source.read(MESSAGE_FIELDS):
        yield _opened(_VERSION_OF_LINE | _record(conversation)) + b',"messages":['
        lead = b""
        for rows in portions:
            # In one call, as a list without its brackets: a third quicker than one by one.
            yield lead + orjson.dumps([_message(row) for row in rows])[1:-1]
            lead = b","
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


def _message(row: Sequence[Any]) -> dict[str, Any]:
    message = dict(zip(MESSAGE_FIELDS, row, strict=True))
    if message["stop"] is not None:
        message["stop"] = _kept_json(message["stop"])
    return message


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
