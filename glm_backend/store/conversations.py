"""Users and their conversations. Whose a conversation is, is asked at every door."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from glm_backend.errors import (
    EmptyTitle,
    InvalidParameter,
    Phrase,
    UnknownConversation,
    UnknownUser,
)
from glm_backend.store.database import Database
from glm_backend.store.schema import conversation_tags, conversations, users
from glm_backend.store.search_index import TITLE_SEQ, Document, index_of
from glm_backend.store.upserts import insert_new
from glm_backend.store.values import Conversation

TITLE_CHARACTERS = 200
_MADE_TITLE_CHARACTERS = 60
TAG_CHARACTERS = 50
_IDS_A_STATEMENT = 1000  # databases limit the values of one statement

_COLUMNS = [conversations.c[field.name] for field in fields(Conversation) if field.name != "tags"]


class Room:
    """What every part of the store stands on: the database and the clock."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self.now = now


class Conversations(Room):
    """Users, and conversations as wholes: made, named, with their settings."""

    def ensure_user(self, name: str) -> str:
        """The id of the user of that name, who is created at need."""
        try:
            return self.user_named(name)
        except UnknownUser:
            now = self.now()
            row = {"id": new_id(now), "name": name, "created_at": now}
            with self._database.writing() as connection:
                insert_new(connection, users, row)  # another may have been quicker
            return self.user_named(name)

    def user_named(self, name: str) -> str:
        """The id of the user of that name; raises UnknownUser."""
        with self._database.reading() as connection:
            user_id = connection.scalar(select(users.c.id).where(users.c.name == name))
        if user_id is None:
            raise UnknownUser(name=name)
        return str(user_id)

    def user_names(self) -> list[str]:
        """Everybody's names, in their order."""
        with self._database.reading() as connection:
            return sorted(connection.scalars(select(users.c.name)))

    def create_conversation(
        self, user_id: str, *, title: str = "", settings: Mapping[str, object] | None = None
    ) -> Conversation:
        """A conversation without messages; without a title it takes one from its first question."""
        now = self.now()
        created = Conversation(
            id=new_id(now),
            title=checked_title(title) if title else "",
            settings=dict(settings or {}),
            head_id=None,
            created_at=now,
            updated_at=now,
        )
        with self._database.writing() as connection:
            insert_conversation(connection, user_id, created)
        return created

    def conversation(self, user_id: str, conversation_id: str) -> Conversation:
        """Raises UnknownConversation also for one that is deleted or another user's."""
        with self._database.reading() as connection:
            return owned_conversation(connection, user_id, conversation_id)

    def rename(self, user_id: str, conversation_id: str, title: str) -> None:
        """Raises UnknownConversation, EmptyTitle, and InvalidParameter for a very long title."""
        title = checked_title(title)
        with self._database.writing() as connection:
            old = owned(connection, user_id, conversation_id, lock=True).title
            set_title(connection, conversation_id, old, title)

    def set_conversation_settings(
        self, user_id: str, conversation_id: str, settings: Mapping[str, object]
    ) -> None:
        """Replaces what this conversation overrides. Raises UnknownConversation."""
        with self._database.writing() as connection:
            owned(connection, user_id, conversation_id)
            here = update(conversations).where(conversations.c.id == conversation_id)
            connection.execute(here.values(settings=dict(settings)))


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
    # Not its key: a message may be written into it meanwhile, which holds on to that.
    held = query.with_for_update(key_share=True) if lock else query
    row = connection.execute(held).one_or_none()
    if row is None:
        raise UnknownConversation(conversation_id=conversation_id)
    return row


def owned_conversation(connection: Connection, user_id: str, conversation_id: str) -> Conversation:
    """The user's conversation with its tags, or UnknownConversation."""
    row = owned(connection, user_id, conversation_id)
    tags = tags_of(connection, [conversation_id])[conversation_id]
    return Conversation(**row._mapping, tags=tags)


def insert_conversation(connection: Connection, user_id: str, created: Conversation) -> None:
    """Writes the row of a conversation that is new."""
    row = {column.name: getattr(created, column.name) for column in _COLUMNS}
    connection.execute(insert(conversations).values(user_id=user_id, **row))
    if created.title:
        index_of(connection).add(connection, [_title(created.id, created.title)])
    if created.tags:
        rows = [{"conversation_id": created.id, "tag": tag} for tag in created.tags]
        connection.execute(insert(conversation_tags), rows)


def set_title(connection: Connection, conversation_id: str, old: str, new: str) -> None:
    """Changes the title, also where it is searched."""
    here = update(conversations).where(conversations.c.id == conversation_id)
    connection.execute(here.values(title=new))
    index = index_of(connection)
    if old:
        index.remove(connection, [_title(conversation_id, old)])
    index.add(connection, [_title(conversation_id, new)])


def _title(conversation_id: str, title: str) -> Document:
    return Document(conversation_id, TITLE_SEQ, title)


def tags_of(connection: Connection, conversation_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The tags of each of some conversations, by name."""
    query = select(conversation_tags).where(
        conversation_tags.c.conversation_id.in_(conversation_ids)
    )
    tags: dict[str, list[str]] = {conversation_id: [] for conversation_id in conversation_ids}
    for conversation_id, tag in connection.execute(query):
        tags[conversation_id].append(tag)
    return {conversation_id: tuple(sorted(its)) for conversation_id, its in tags.items()}


def in_batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """`ids` in parts that fit into one statement."""
    return (ids[i : i + _IDS_A_STATEMENT] for i in range(0, len(ids), _IDS_A_STATEMENT))


def new_id(now: datetime) -> str:
    """An id that nobody can guess: the milliseconds since 1970, then 80 random bits.

    In the order of time, so that what is written together stands together in an index: with ids
    at random, writing many messages took half as long again.
    """
    return f"{int(now.timestamp() * 1000):012x}{secrets.token_hex(10)}"


def title_from(question: str) -> str:
    """A title made of the first line of the first question."""
    line = " ".join(question.strip().partition("\n")[0].split())
    if len(line) <= _MADE_TITLE_CHARACTERS:
        return line
    return line[: _MADE_TITLE_CHARACTERS - 1].rstrip() + "…"


def checked_title(title: str) -> str:
    """The title with its white space tidied; raises EmptyTitle, InvalidParameter for a long one."""
    title = " ".join(title.split())
    if not title:
        raise EmptyTitle(limit=TITLE_CHARACTERS)
    if len(title) > TITLE_CHARACTERS:
        allowed = Phrase("a title of 1 to {limit} characters", limit=TITLE_CHARACTERS)
        raise InvalidParameter(name=Phrase("title"), value=repr(title[:40]), allowed=allowed)
    return title


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags with their white space tidied, each once, by name; raises InvalidParameter."""
    tidy = {" ".join(str(tag).split()) for tag in tags}
    for tag in tidy:
        if not 1 <= len(tag) <= TAG_CHARACTERS:
            allowed = Phrase("a tag of 1 to {limit} characters", limit=TAG_CHARACTERS)
            raise InvalidParameter(name=Phrase("tag"), value=repr(tag[:40]), allowed=allowed)
    return tuple(sorted(tidy))
