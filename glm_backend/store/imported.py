"""A conversation that came from elsewhere: checked, and made into rows that hold together."""

from __future__ import annotations

import functools
import json
import math
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.store.columns import timestamp_text
from glm_backend.store.conversations import checked_tags, checked_title
from glm_backend.store.schema import messages
from glm_backend.store.search_index import MOST_MESSAGES
from glm_backend.store.values import ImportedConversation, ImportedMessage, Role, Status

_is_id = re.compile(r"[0-9a-f]{32}").fullmatch
_ROLES, _STATUSES = get_args(Role), get_args(Status)
#: So long may the name of a model be: what is counted by it stands in an index.
NAME_CHARACTERS = 200
_NAMES = ("model", "quantization")
_TEXTS = ("system_prompt", "finish_reason", "error", "comment")
_COUNTS = ("top_k", "max_new_tokens", "left_out", "prompt_tokens", "completion_tokens")
_NUMBERS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty")
_MEASURED = ("ttft_ms", "duration_ms", "tokens_per_s")
_MOST_MEASURED = 10**12  # thirty years in milliseconds; sums of such stay far from infinity
_LARGEST = {"seed": 2**63 - 1, **dict.fromkeys(_COUNTS, 2**31 - 1)}
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_EMPTY_ROW: dict[str, Any] = {column.name: None for column in messages.c}


class CheckedConversation:
    """The rows of one conversation. Raises InvalidParameter for what no conversation can have.

    row: for the table of conversations, without its user. messages: for theirs, in their order.
    Both with values as they are kept (columns.py).
    The ids are those it came with until `take_other_ids`.
    """

    def __init__(self, given: ImportedConversation) -> None:
        self.id = self.given_id = _id("id", given.id)
        self.messages = _tree(self.id, given.messages)
        self.tags = checked_tags(_text("tag", tag) or "" for tag in given.tags)
        ids = [row["id"] for row in self.messages]
        head = given.head_id if given.head_id is not None else (ids[-1] if ids else None)
        if head is not None and head not in set(ids):
            raise _wrong("head_id", head, Phrase("one of its messages"))
        self.row: dict[str, Any] = {
            "id": self.id,
            "title": _title(given.title),
            "settings": _settings(given.settings),
            "head_id": head,
            "created_at": _time("created_at", given.created_at),
            "updated_at": _time("updated_at", given.updated_at),
            "deleted_at": None,
            "archived_at": given.archived_at and _time("archived_at", given.archived_at),
            "pinned": bool(given.pinned),
            "source": _text("source", given.source),
            "forked_from": given.forked_from and _id("forked_from", given.forked_from),
        }

    def ids(self) -> set[str]:
        """Every id that it would take in the store."""
        return {self.id, *(row["id"] for row in self.messages)}

    def id_for(self, user_id: str) -> str:
        """The id that stands in for its own where that is taken; the same at every call."""
        return uuid.uuid5(uuid.UUID(user_id), self.given_id).hex

    def take_other_ids(self, user_id: str) -> None:
        """Gives the conversation and its messages the ids that stand in for taken ones."""
        if self.id != self.given_id:
            return
        user = uuid.UUID(user_id)
        new = {row["id"]: uuid.uuid5(user, f"{self.id}/{row['id']}").hex for row in self.messages}
        self.id = self.row["id"] = self.id_for(user_id)
        self.row["head_id"] = new.get(self.row["head_id"])
        for row in self.messages:
            row["conversation_id"] = self.id
            for name in ("id", "parent_id", "continues"):
                row[name] = new.get(row[name], row[name])


def _tree(conversation_id: str, given: Sequence[ImportedMessage]) -> list[dict[str, Any]]:
    """Rows in their order, with their places in the tree: a parent stands before its children."""
    if len(given) > MOST_MESSAGES:
        allowed = Phrase("at most {limit} messages", limit=MOST_MESSAGES)
        raise _wrong("messages", Phrase("{count} messages", count=len(given)), allowed)
    rows: dict[str, dict[str, Any]] = {}
    children: dict[str | None, int] = {}
    for seq, message in enumerate(given, 1):
        row = _row(message)
        if row["id"] in rows:
            raise _wrong("id", row["id"], Phrase("another id for each message"))
        parent = rows.get(row["parent_id"])
        if parent is None and row["parent_id"] is not None:
            raise _wrong("parent_id", row["parent_id"], Phrase("a message that stands before it"))
        branch = children[row["parent_id"]] = children.get(row["parent_id"], 0) + 1
        turn = parent["turn"] + (parent["role"] == "assistant") if parent else 1
        row.update(conversation_id=conversation_id, seq=seq, turn=turn, branch=branch)
        rows[row["id"]] = row
    return list(rows.values())


def _row(message: ImportedMessage) -> dict[str, Any]:
    given: Mapping[str, Any] = message
    row = _EMPTY_ROW | {
        "id": _id("id", given["id"]),
        "parent_id": given["parent_id"] and _id("parent_id", given["parent_id"]),
        "role": _one_of("role", given["role"], _ROLES),
        "status": _one_of("status", given["status"], _STATUSES),
        "content": _text("content", given["content"]),
        "created_at": _time("created_at", given["created_at"]),
    }
    if row["content"] is None:
        raise _wrong("content", None, Phrase("text"))
    if row["status"] == "generating":  # nobody writes it any more
        row["status"] = "interrupted"
    for name, check in _CHECKS.items():
        value = given.get(name)
        if value is not None:
            row[name] = check(name, value)
    return row


def _id(name: str, value: object) -> str:
    if not isinstance(value, str) or not _is_id(value):
        raise _wrong(name, value, Phrase("32 hexadecimal digits"))
    return value


def _text(name: str, value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and "\0" not in value):
        raise _wrong(name, value, Phrase("text without NUL"))
    if value is not None and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _wrong(name, value, Phrase("text without lone surrogates")) from None
    return value


def _name(name: str, value: object) -> str | None:
    text = _text(name, value)
    if text is not None and len(text) > NAME_CHARACTERS:
        allowed = Phrase("a text of at most {limit} characters", limit=NAME_CHARACTERS)
        raise _wrong(name, Phrase("too long"), allowed)
    return text


def _title(value: object) -> str:
    title = _text("title", value)
    return checked_title(title) if title and title.strip() else ""


def _time(name: str, value: object) -> str:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise _wrong(name, value, Phrase("a time with a zone"))
    return timestamp_text(value)


def _one_of(name: str, value: object, allowed: Sequence[object]) -> object:
    if value not in allowed:
        raise _wrong(name, value, Phrase("one of {names}", names=", ".join(map(str, allowed))))
    return value


def _whole_number(name: str, value: object) -> int:
    most = _LARGEST[name]
    if type(value) is not int or not 0 <= value <= most:
        allowed = Phrase("a whole number from {low} to {high}", low=0, high=most)
        raise _wrong(name, value, allowed)
    return value


def _number(name: str, value: object) -> float:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) <= sys.float_info.max:  # compared without converting it
        return float(value)
    raise _wrong(name, value, Phrase("a finite number"))


def _measured(name: str, value: object) -> float:
    number = _number(name, value)
    if not 0 <= number <= _MOST_MEASURED:
        allowed = Phrase("a number from {low} to {high}", low=0, high=_MOST_MEASURED)
        raise _wrong(name, value, allowed)
    return number


def _stop(name: str, value: object) -> str:
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise _wrong(name, value, Phrase("a list of texts"))
    for part in value:
        _text(name, part)
    return _list_text(tuple(value))


@functools.lru_cache(1000)  # few lists are different, and most are empty
def _list_text(value: tuple[str, ...]) -> str:
    return _json(value)


def _rating(name: str, value: object) -> object:
    return _one_of(name, value, (1, -1))


_CHECKS = {
    **dict.fromkeys(_NAMES, _name),
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys(_LARGEST, _whole_number),
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(_MEASURED, _measured),
    "stop": _stop,
    "rating": _rating,
    "continues": _id,
}


def _settings(settings: Mapping[str, object]) -> str | None:
    try:
        return _text("settings", _json(settings))
    except (TypeError, ValueError, RecursionError):
        raise _wrong("settings", type(settings), Phrase("values that JSON can say")) from None


def _wrong(name: str, value: object, allowed: Phrase) -> InvalidParameter:
    try:
        shown = value if isinstance(value, Phrase) else repr(value)[:80]
    except (ValueError, RecursionError):  # a number of thousands of digits, a list in itself
        shown = type(value).__name__
    return InvalidParameter(name=name, value=shown, allowed=allowed)
