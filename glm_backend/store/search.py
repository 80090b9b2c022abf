"""Finding conversations: the filter of the history page, its list and its counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, or_, select

from glm_backend.store.conversations import Room
from glm_backend.store.schema import conversations, messages
from glm_backend.store.values import ConversationRow

_PREVIEW_CHARACTERS = 160


@dataclass(frozen=True, slots=True)
class ConversationFilter:
    """Which conversations; the default is all of them.

    text: occurs in the title or in a message of any branch, ASCII letters of either case.
    since, until: changed at or after, and begun before, these times. model: answered in it.
    """

    text: str = ""
    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None


EVERYTHING = ConversationFilter()


class Search(Room):
    """Lists of a user's conversations, without the deleted ones."""

    def list_conversations(
        self,
        user_id: str,
        *,
        limit: int,
        offset: int = 0,
        filter: ConversationFilter = EVERYTHING,
    ) -> list[ConversationRow]:
        """One page of them, the latest change first."""
        query = _page(limit, offset).where(*matching(user_id, filter))
        with self._database.reading() as connection:
            page = connection.execute(query).all()
            contents = _contents(connection, [row.id for row in page])
        return [
            ConversationRow(
                id=row.id,
                title=row.title,
                created_at=row.created_at,
                updated_at=row.updated_at,
                message_count=contents[row.id].message_count,
                models=tuple(sorted(contents[row.id].models)),
                quantizations=tuple(sorted(contents[row.id].quantizations)),
                preview=" ".join((row.beginning or "").split()),
            )
            for row in page
        ]

    def count_conversations(self, user_id: str, filter: ConversationFilter = EVERYTHING) -> int:
        """How many there are."""
        query = select(func.count()).select_from(conversations).where(*matching(user_id, filter))
        with self._database.reading() as connection:
            return connection.scalar(query) or 0

    def models_used(self, user_id: str) -> list[str]:
        """The models that answered in them, by name."""
        query = (
            select(messages.c.model)
            .distinct()
            .join(conversations)
            .where(*matching(user_id, EVERYTHING), messages.c.model.is_not(None))
            .order_by(messages.c.model)
        )
        with self._database.reading() as connection:
            return list(connection.scalars(query))


def matching(user_id: str, filter: ConversationFilter) -> list[ColumnElement[bool]]:
    """The conditions on the table of conversations that `filter` stands for."""
    inside = exists().where(messages.c.conversation_id == conversations.c.id)
    conditions = [conversations.c.user_id == user_id, conversations.c.deleted_at.is_(None)]
    if filter.text:
        in_title = conversations.c.title.icontains(filter.text, autoescape=True)
        in_message = messages.c.content.icontains(filter.text, autoescape=True)
        conditions.append(or_(in_title, inside.where(in_message)))
    if filter.since is not None:
        conditions.append(conversations.c.updated_at >= filter.since)
    if filter.until is not None:
        conditions.append(conversations.c.created_at < filter.until)
    if filter.model is not None:
        conditions.append(inside.where(messages.c.model == filter.model))
    return conditions


@dataclass(slots=True)
class _Contents:
    message_count: int = 0
    models: set[str] = field(default_factory=set)
    quantizations: set[str] = field(default_factory=set)


def _page(limit: int, offset: int) -> Select[Any]:
    shown = messages.alias("shown")
    return (
        select(
            conversations.c.id,
            conversations.c.title,
            conversations.c.created_at,
            conversations.c.updated_at,
            func.substr(shown.c.content, 1, _PREVIEW_CHARACTERS).label("beginning"),
        )
        .outerjoin(shown, shown.c.id == conversations.c.head_id)
        .order_by(conversations.c.updated_at.desc(), conversations.c.id.desc())
        .limit(limit)
        .offset(offset)
    )


def _contents(connection: Connection, ids: Sequence[str]) -> dict[str, _Contents]:
    kinds = (messages.c.conversation_id, messages.c.model, messages.c.quantization)
    query = select(*kinds, func.count()).where(messages.c.conversation_id.in_(ids))
    contents = {conversation_id: _Contents() for conversation_id in ids}
    for conversation_id, model, quantization, count in connection.execute(query.group_by(*kinds)):
        its = contents[conversation_id]
        its.message_count += count
        if model is not None:
            its.models.add(model)
            its.quantizations.add(quantization)
    return contents
