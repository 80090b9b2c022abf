"""Conversations of our own JSON and JSONL, with everything that is known of them.

Every field comes back as it was; fields that are not known are left alone. What a field may be is
checked by the store, so that nothing can come in here that could not be written there.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from glm_backend.errors import ConversationUnreadable, InvalidParameter, Phrase
from glm_backend.store.values import ImportedConversation, ImportedMessage
from glm_backend.transfer.records import FORMAT, VERSION

_REQUIRED = frozenset(("message_id", "role", "content", "status", "created_at"))
_is_id = re.compile(r"[0-9a-f]{32}").fullmatch


def is_own(value: Mapping[str, Any]) -> bool:
    if value.get("format") == FORMAT:
        return True
    messages = value.get("messages")
    return "head_id" in value and isinstance(messages, list)


def read_own(value: Mapping[str, Any], user_id: str) -> ImportedConversation:
    """One conversation, as in docs/export.schema.json.

    Ids are kept; one that is none of ours is replaced by one made of it and the user. Raises
    ConversationUnreadable and InvalidParameter.
    """
    version = value.get("version", VERSION)
    if version != VERSION:
        reason = Phrase(
            "it is of version {version!r}, and this program reads {known}",
            version=str(version)[:20],
            known=VERSION,
        )
        raise ConversationUnreadable(reason=reason)
    ids = _Ids(user_id, _given(value, "id", str))
    return ImportedConversation(
        id=ids.of(value["id"], "id") or "",
        title=_given(value, "title", str),
        created_at=_time(value, "created_at"),
        updated_at=_time(value, "updated_at"),
        messages=[_message(message, ids) for message in _given(value, "messages", list)],
        settings=_given(value, "settings", dict),
        head_id=ids.of(value.get("head_id"), "head_id"),
        pinned=_checked("pinned", value.get("pinned", False), bool),
        archived_at=_time(value, "archived_at") if value.get("archived_at") else None,
        source=value.get("source"),
        forked_from=ids.of(value.get("forked_from"), "forked_from"),
        tags=[_checked("tags", tag, str) for tag in _given(value, "tags", list)],
    )


class _Ids:
    """Ids as the store has them. Those of ours stay; another one gives the same at every import."""

    def __init__(self, user_id: str, conversation_id: str) -> None:
        self._user_id = user_id
        self._within = f"{FORMAT}/{conversation_id}"

    def of(self, given: object, name: str) -> str | None:
        if given is None or (isinstance(given, str) and _is_id(given)):
            return given
        text = _checked(name, given, str)
        return uuid.uuid5(uuid.UUID(self._user_id), f"{self._within}/{text}").hex


def _message(given: object, ids: _Ids) -> ImportedMessage:
    message: dict[str, Any] = _checked("messages", given, dict)
    for name in _REQUIRED - message.keys():
        raise InvalidParameter(name=name, value="None", allowed=Phrase("text"))
    _checked("content", message["content"], str)
    message["id"] = ids.of(_checked("message_id", message["message_id"], str), "message_id")
    message["parent_id"] = ids.of(message.get("parent_id"), "parent_id")
    message["continues"] = ids.of(message.get("continues"), "continues")
    message["created_at"] = _time(message, "created_at")
    return message  # type: ignore[return-value]  # the store checks what it is given


_NAMES = {
    str: Phrase("text"),
    list: Phrase("a list"),
    dict: Phrase("an object"),
    bool: Phrase("true or false"),
}


def _given(fields: Mapping[str, Any], name: str, kind: type) -> Any:
    return _checked(name, fields.get(name), kind)


def _checked(name: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise InvalidParameter(name=name, value=_shown(value), allowed=_NAMES[kind])
    return value


def _time(fields: Mapping[str, Any], name: str) -> datetime:
    try:
        time = datetime.fromisoformat(fields[name])
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        pass  # said below
    allowed = Phrase("a time with a zone")
    raise InvalidParameter(name=name, value=_shown(fields.get(name)), allowed=allowed)


def _shown(value: object) -> str:
    return repr(value)[:80] if value is None or isinstance(value, str | int | float) else "…"
