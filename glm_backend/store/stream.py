"""Messages in bulk, as plain rows in a fixed order, for exports of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, String, select, type_coerce

from glm_backend.errors import UnknownConversation
from glm_backend.store.columns import Json, Timestamp
from glm_backend.store.conversations import Room, in_batches
from glm_backend.store.schema import conversations, messages, users
from glm_backend.store.search import EVERYTHING, ConversationFilter, matching

_ROWS_AT_ONCE = 100  # so many texts are in memory
_CONVERSATIONS_AT_ONCE = 200

#: What can be streamed. Times and JSON come as the text that they are kept as.
STREAMED: dict[str, ColumnElement[Any]] = {
    "conversation_id": conversations.c.id,
    "conversation_title": conversations.c.title,
    "user": users.c.name,
    "conversation_created_at": conversations.c.created_at,
    "conversation_updated_at": conversations.c.updated_at,
    "conversation_settings": conversations.c.settings,
    "conversation_head_id": conversations.c.head_id,
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
        user_id: str,
        conversation_ids: Sequence[str] | None = None,
        filter: ConversationFilter = EVERYTHING,
    ) -> list[str]:
        """The ids that match the filter, of these or of all, the oldest conversation first.

        Raises UnknownConversation for an id that is deleted, unknown or another user's.
        """
        with self._database.reading() as connection:
            if conversation_ids is not None:
                mine = _find(connection, conversation_ids, matching(user_id, EVERYTHING))
                for unknown in sorted(set(conversation_ids).difference(mine)):
                    raise UnknownConversation(conversation_id=unknown)
            return _find(connection, conversation_ids, matching(user_id, filter))

    def stream(
        self, user_id: str, conversation_ids: Sequence[str], columns: Sequence[str]
    ) -> Iterator[Sequence[Any]]:
        """Rows of these columns of STREAMED: by conversation, messages as they arrived.

        A conversation without messages gives one row whose message is all None; one that was
        deleted meanwhile gives none. Each conversation is read in one state, all of them are not.
        """
        query = _streamed(columns).where(*matching(user_id, EVERYTHING))
        for i in range(0, len(conversation_ids), _CONVERSATIONS_AT_ONCE):
            some = conversation_ids[i : i + _CONVERSATIONS_AT_ONCE]
            with self._database.reading() as connection:
                portion = query.where(conversations.c.id.in_(some))
                options = {"yield_per": _ROWS_AT_ONCE}
                yield from connection.execute(portion, execution_options=options)


def _find(
    connection: Connection, ids: Sequence[str] | None, conditions: Sequence[ColumnElement[bool]]
) -> list[str]:
    query = select(conversations.c.created_at, conversations.c.id).where(*conditions)
    parts = [query]
    if ids is not None:
        parts = [query.where(conversations.c.id.in_(some)) for some in in_batches(ids)]
    return [row.id for row in sorted({row for part in parts for row in connection.execute(part)})]


def _streamed(columns: Sequence[str]) -> Select[Any]:
    return (
        select(*(_as_kept(STREAMED[name]).label(name) for name in columns))
        .select_from(conversations)
        .join(users)
        .outerjoin(messages)
        .order_by(conversations.c.created_at, conversations.c.id, messages.c.seq)
    )


def _as_kept(column: ColumnElement[Any]) -> ColumnElement[Any]:
    kept_as_text = isinstance(column.type, Json | Timestamp)
    return type_coerce(column, String) if kept_as_text else column
