"""Users and their conversations. Whose a conversation is, is asked at every door."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from glm_backend.errors import InvalidParameter, Phrase, UnknownConversation
from glm_backend.store.database import Database
from glm_backend.store.schema import conversations, users
from glm_backend.store.values import Conversation

_TITLE_CHARACTERS = 200
_MADE_TITLE_CHARACTERS = 60
_IDS_A_STATEMENT = 1000  # databases limit the values of one statement

_COLUMNS = [conversations.c[field.name] for field in fields(Conversation)]


class Room:
    """What every part of the store stands on: the database and the clock."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self.now = now


class Conversations(Room):
    """Users, and conversations as wholes: made, named, put away and brought back."""

    def ensure_user(self, name: str) -> str:
        """The id of the user of that name, who is created at need."""
        known = select(users.c.id).where(users.c.name == name)
        with self._database.reading() as connection:
            user_id = connection.scalar(known)
        if user_id is not None:
            return str(user_id)
        with self._database.writing() as connection:
            user_id = connection.scalar(known)  # another may have been quicker
            if user_id is None:
                user_id = new_id()
                row = {"id": user_id, "name": name, "created_at": self.now()}
                connection.execute(insert(users).values(row))
        return str(user_id)

    def create_conversation(
        self, user_id: str, *, title: str = "", settings: Mapping[str, object] | None = None
    ) -> Conversation:
        """A conversation without messages; without a title it takes one from its first question."""
        now = self.now()
        created = Conversation(
            id=new_id(),
            title=_checked_title(title) if title else "",
            settings=dict(settings or {}),
            head_id=None,
            created_at=now,
            updated_at=now,
        )
        row = {field.name: getattr(created, field.name) for field in fields(created)}
        with self._database.writing() as connection:
            connection.execute(insert(conversations).values(user_id=user_id, **row))
        return created

    def conversation(self, user_id: str, conversation_id: str) -> Conversation:
        """Raises UnknownConversation also for one that is deleted or another user's."""
        with self._database.reading() as connection:
            return Conversation(*owned(connection, user_id, conversation_id))

    def rename(self, user_id: str, conversation_id: str, title: str) -> None:
        """Raises UnknownConversation, and InvalidParameter for an empty or very long title."""
        self._change(user_id, conversation_id, title=_checked_title(title))

    def set_conversation_settings(
        self, user_id: str, conversation_id: str, settings: Mapping[str, object]
    ) -> None:
        """Replaces what this conversation overrides. Raises UnknownConversation."""
        self._change(user_id, conversation_id, settings=dict(settings))

    def delete(self, user_id: str, conversation_ids: Sequence[str]) -> int:
        """Hides these conversations of the user; returns how many. Nothing is erased."""
        return self._mark(user_id, conversation_ids, deleted_at=self.now())

    def restore(self, user_id: str, conversation_ids: Sequence[str]) -> int:
        """Brings deleted conversations of the user back; returns how many."""
        return self._mark(user_id, conversation_ids, deleted_at=None)

    def _change(self, user_id: str, conversation_id: str, **values: object) -> None:
        with self._database.writing() as connection:
            owned(connection, user_id, conversation_id)
            here = conversations.c.id == conversation_id
            connection.execute(update(conversations).where(here).values(**values))

    def _mark(self, user_id: str, ids: Sequence[str], *, deleted_at: datetime | None) -> int:
        deleted = conversations.c.deleted_at
        changed = update(conversations).where(
            conversations.c.user_id == user_id,
            deleted.is_(None) if deleted_at else deleted.is_not(None),
        )
        with self._database.writing() as connection:
            return sum(
                connection.execute(
                    changed.where(conversations.c.id.in_(some)).values(deleted_at=deleted_at)
                ).rowcount
                for some in in_batches(ids)
            )


def owned(
    connection: Connection, user_id: str, conversation_id: str, *, lock: bool = False
) -> Row[*tuple[Any, ...]]:
    """The conversation's row in the order of Conversation's fields, or UnknownConversation.

    `lock` makes other writers of this conversation wait where a database writes in parallel.
    """
    query = select(*_COLUMNS).where(
        conversations.c.id == conversation_id,
        conversations.c.user_id == user_id,
        conversations.c.deleted_at.is_(None),
    )
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise UnknownConversation(conversation_id=conversation_id)
    return row


def in_batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """`ids` in parts that fit into one statement."""
    return (ids[i : i + _IDS_A_STATEMENT] for i in range(0, len(ids), _IDS_A_STATEMENT))


def new_id() -> str:
    """An id that nobody can guess."""
    return uuid.uuid4().hex


def title_from(question: str) -> str:
    """A title made of the first line of the first question."""
    line = " ".join(question.strip().partition("\n")[0].split())
    if len(line) <= _MADE_TITLE_CHARACTERS:
        return line
    return line[: _MADE_TITLE_CHARACTERS - 1].rstrip() + "…"


def _checked_title(title: str) -> str:
    title = " ".join(title.split())
    if not 1 <= len(title) <= _TITLE_CHARACTERS:
        allowed = Phrase("a title of 1 to {limit} characters", limit=_TITLE_CHARACTERS)
        raise InvalidParameter(name=Phrase("title"), value=repr(title[:40]), allowed=allowed)
    return title
