"""Conversations in bulk, as plain rows in a fixed order, for exports of any size.

The driver's own cursor gives the messages: over a million of them SQLAlchemy's rows cost three
times as much as all that SQLite does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Select,
    String,
    bindparam,
    select,
    type_coerce,
)
from sqlalchemy.engine.interfaces import DBAPICursor

from glm_backend.errors import GLMError, UnknownConversation
from glm_backend.store.columns import Json, Timestamp
from glm_backend.store.conversations import Room, in_batches, tags_of
from glm_backend.store.schema import conversations, messages, users
from glm_backend.store.search import EVERYTHING, ConversationFilter, matching
from glm_backend.store.values import Everybody, Reader

_CONVERSATIONS_AT_ONCE = 500
_ROWS_AT_ONCE = 64  # so many texts are in memory

#: Rows of messages, each in the order of the columns that were asked for.
Rows = Sequence[Sequence[Any]]

#: What is said of a conversation, beside its tags. Times come as the text they are kept as.
CONVERSATION: dict[str, ColumnElement[Any]] = {
    "id": conversations.c.id,
    "title": conversations.c.title,
    "user": users.c.name,
    "created_at": conversations.c.created_at,
    "updated_at": conversations.c.updated_at,
    "settings": conversations.c.settings,
    "head_id": conversations.c.head_id,
    "pinned": conversations.c.pinned,
    "archived_at": conversations.c.archived_at,
    "source": conversations.c.source,
    "forked_from": conversations.c.forked_from,
}

#: What can be said of a message. Times and JSON come as the text that they are kept as.
MESSAGE: dict[str, ColumnElement[Any]] = {
    "message_id": messages.c.id,
    **{
        column.name: column
        for column in messages.c
        if column.name not in ("id", "conversation_id", "owner", "heartbeat_at")
    },
}


class Stream(Room):
    """Reading many conversations with constant memory."""

    def select_conversations(
        self,
        user_id: Reader,
        conversation_ids: Sequence[str] | None = None,
        filter: ConversationFilter = EVERYTHING,
    ) -> list[str]:
        """The ids that match the filter, of these or of all, the oldest conversation first.

        Raises UnknownConversation for an id that is unknown, another user's, or in the trash
        (with a filter for the trash: not in it).
        """
        with self._database.reading() as connection:
            if conversation_ids is not None:
                here = ConversationFilter(trash=filter.trash)
                mine = matching(connection, user_id, here)
                known = _find(connection, conversation_ids, mine)
                for unknown in sorted(set(conversation_ids).difference(known)):
                    raise UnknownConversation(conversation_id=unknown)
            return _find(connection, conversation_ids, matching(connection, user_id, filter))

    def found_among(
        self, user_id: Reader, conversation_ids: Sequence[str], filter: ConversationFilter
    ) -> list[str]:
        """Those of these ids that match the filter, the oldest conversation first."""
        with self._database.reading() as connection:
            return _find(connection, conversation_ids, matching(connection, user_id, filter))

    def stream(
        self,
        user_id: Reader,
        conversation_ids: Sequence[str],
        columns: Sequence[str],
        *,
        shown_only: bool = False,
    ) -> Iterator[tuple[dict[str, Any], Iterator[Rows]]]:
        """Each conversation by the names of CONVERSATION, its "tags" among them, with the rows of
        its messages, of these columns of MESSAGE, some at a time.

        conversation_ids: as `select_conversations` gave them, whose order is kept. The messages
        come as they arrived and are to be taken before the next conversation; shown_only: those
        of the branch that is shown. What is another user's, or erased, is left out. Each
        conversation is read in one state, all of them are not. Memory is that of a portion of
        conversations without their messages; a driver that fetches results whole (PostgreSQL's)
        adds those of one conversation.
        """
        of_conversations = _conversations(user_id)
        of_messages: _OnDriver | None = None
        for i in range(0, len(conversation_ids), _CONVERSATIONS_AT_ONCE):
            some = conversation_ids[i : i + _CONVERSATIONS_AT_ONCE]
            with self._database.streaming() as connection:
                rows = connection.execute(of_conversations, {"ids": some})
                found = {row[0]: dict(zip(CONVERSATION, row, strict=True)) for row in rows}
                tags = tags_of(connection, some)
                if of_messages is None:
                    query = _messages(columns, shown_only=shown_only)
                    of_messages = _OnDriver(query, connection.dialect, self._database.translated)
                cursor = connection.connection.cursor()
                for conversation_id in some:
                    if conversation := found.get(conversation_id):
                        conversation["tags"] = tags[conversation_id]
                        yield conversation, of_messages.rows(cursor, conversation)


class _OnDriver:
    """One query, compiled once and asked many times on the driver's own cursor."""

    def __init__(
        self, query: Select[Any], dialect: Dialect, translated: Callable[[Exception], GLMError]
    ) -> None:
        compiled = query.compile(dialect=dialect)
        self._sql = str(compiled)
        self._names: Sequence[str] | None = compiled.positiontup  # None: by name
        self._driver_error = dialect.loaded_dbapi.Error
        self._translated = translated

    def rows(self, cursor: DBAPICursor, values: Mapping[str, Any]) -> Iterator[Rows]:
        """The rows, some at a time; `values` by the names of the query's parameters."""
        given = values if self._names is None else [values[name] for name in self._names]
        try:
            cursor.execute(self._sql, given)
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield rows
        except self._driver_error as error:
            raise self._translated(error) from error


def _find(
    connection: Connection, ids: Sequence[str] | None, conditions: Sequence[ColumnElement[bool]]
) -> list[str]:
    age = type_coerce(conversations.c.created_at, String)  # as kept: it sorts, and needs no reading
    query = select(age, conversations.c.id).where(*conditions)
    parts = [query]
    if ids is not None:
        parts = [query.where(conversations.c.id.in_(some)) for some in in_batches(ids)]
    found = {(at, its_id) for part in parts for at, its_id in connection.execute(part)}
    return [its_id for _, its_id in sorted(found)]


def _conversations(user_id: Reader) -> Select[Any]:
    """The conversations :ids, as far as they are the user's."""
    # As an expression, because a planner that sees the plain column walks over all conversations
    # of the user to find two hundred by their ids.
    owner = conversations.c.user_id.concat("")
    query = select(*_as_kept(CONVERSATION)).join(users, users.c.id == owner)
    ids = bindparam("ids", expanding=True, type_=String)
    query = query.where(conversations.c.id.in_(ids))
    return query if user_id is Everybody.EVERYBODY else query.where(owner == user_id)


def _messages(columns: Sequence[str], *, shown_only: bool) -> Select[Any]:
    """Of the conversation :id, along the index that has them in order; nothing is sorted."""
    query = select(*_as_kept({name: MESSAGE[name] for name in columns}))
    query = query.where(messages.c.conversation_id == bindparam("id", type_=String))
    if shown_only:
        leaf = select(messages.c.id, messages.c.parent_id)
        leaf = leaf.where(messages.c.id == bindparam("head_id", type_=String))
        path = leaf.cte("path", recursive=True)
        above = select(messages.c.id, messages.c.parent_id).join(
            path, messages.c.id == path.c.parent_id
        )
        path = path.union_all(above)
        query = query.where(messages.c.id.in_(select(path.c.id)))
    return query.order_by(messages.c.seq)


def _as_kept(columns: Mapping[str, ColumnElement[Any]]) -> list[ColumnElement[Any]]:
    return [
        (type_coerce(column, String) if isinstance(column.type, Json | Timestamp) else column)
        .label(name)
        for name, column in columns.items()
    ]  # fmt: skip
