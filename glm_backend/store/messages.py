"""The messages of one conversation as a tree: paths through it, and the branch that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Select, literal, select, update

from glm_backend.errors import AnswerComplete, AnswerRunning, UnknownMessage
from glm_backend.store.conversations import Room, owned
from glm_backend.store.schema import conversations, messages
from glm_backend.store.values import Message

_FIELDS = [field.name for field in fields(Message)]
_COLUMNS = [messages.c[name] for name in _FIELDS]
_STOP = _FIELDS.index("stop")


class Messages(Room):
    """Reading the tree, and choosing the branch that is shown."""

    def path(
        self,
        user_id: str,
        conversation_id: str,
        leaf_id: str | None = None,
        *,
        last: int | None = None,
    ) -> list[Message]:
        """The messages from the root down to `leaf_id` (default: the shown leaf).

        `last`: only that many at the end. Raises UnknownConversation, UnknownMessage.
        """
        with self._database.reading() as connection:
            head_id = owned(connection, user_id, conversation_id).head_id
            leaf_id = leaf_id or head_id
            return path_to(connection, conversation_id, leaf_id, last) if leaf_id else []

    def versions(self, user_id: str, conversation_id: str) -> dict[str | None, list[str]]:
        """The ids of the children of every message, oldest first; those of None are roots.

        A page draws "2 / 3" at a message from its place among the children of its parent.
        """
        query = (
            select(messages.c.parent_id, messages.c.id)
            .where(messages.c.conversation_id == conversation_id)
            .order_by(messages.c.seq)
        )
        children: dict[str | None, list[str]] = {}
        with self._database.reading() as connection:
            owned(connection, user_id, conversation_id)
            for parent_id, message_id in connection.execute(query):
                children.setdefault(parent_id, []).append(message_id)
        return children

    def show_branch(self, user_id: str, conversation_id: str, message_id: str) -> None:
        """Shows the branch through this message, down to the newest leaf below it.

        Raises UnknownConversation, UnknownMessage.
        """
        with self._database.writing() as connection:
            owned(connection, user_id, conversation_id, lock=True)
            message_in(connection, conversation_id, message_id)
            leaf_id = connection.scalar(_newest_below(message_id))
            shown = update(conversations).where(conversations.c.id == conversation_id)
            connection.execute(shown.values(head_id=leaf_id))


def path_to(
    connection: Connection, conversation_id: str, leaf_id: str, last: int | None = None
) -> list[Message]:
    """The messages down to this one, or UnknownMessage when it is not of this conversation."""
    rows = connection.execute(_path_query(conversation_id, leaf_id, last)).all()
    if not rows:
        raise UnknownMessage(message_id=leaf_id)
    return [message_from(row) for row in rows]


def message_in(connection: Connection, conversation_id: str, message_id: str) -> Message:
    """The message, or UnknownMessage when it is not one of this conversation."""
    query = select(*_COLUMNS).where(
        messages.c.id == message_id, messages.c.conversation_id == conversation_id
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise UnknownMessage(message_id=message_id)
    return message_from(row)


def require_continuable(answer: Message) -> None:
    """Raises AnswerRunning while it is written, AnswerComplete for one that ended by itself."""
    if answer.status == "generating":
        raise AnswerRunning()
    if not answer.can_be_continued:
        raise AnswerComplete()


def message_from(row: Sequence[Any]) -> Message:
    """The value of a row of all its columns in the order of Message's fields."""
    values: list[Any] = list(row)
    if values[_STOP] is not None:
        values[_STOP] = tuple(values[_STOP])
    return Message(*values)


def _path_query(conversation_id: str, leaf_id: str, last: int | None) -> Select[Any]:
    # Climbs from the leaf by primary key, so that other branches and older messages cost nothing.
    here = messages.c.conversation_id == conversation_id
    leaf = select(messages.c.id, messages.c.parent_id, literal(1).label("height"))
    path = leaf.where(messages.c.id == leaf_id, here).cte("path", recursive=True)
    parent = select(messages.c.id, messages.c.parent_id, path.c.height + 1)
    parent = parent.where(messages.c.id == path.c.parent_id)
    if last is not None:
        parent = parent.where(path.c.height < last)
    path = path.union_all(parent)
    joined = select(*_COLUMNS).join(path, messages.c.id == path.c.id)
    return joined.order_by(messages.c.seq)


def _newest_below(message_id: str) -> Select[tuple[str]]:
    # The newest message of a subtree is always a leaf: a child is younger than its parent.
    top = select(messages.c.id, messages.c.seq).where(messages.c.id == message_id)
    below = top.cte("below", recursive=True)
    child = select(messages.c.id, messages.c.seq).where(messages.c.parent_id == below.c.id)
    below = below.union_all(child)
    return select(below.c.id).order_by(below.c.seq.desc()).limit(1)
