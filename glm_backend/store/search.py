"""Finding conversations: the filter of the history page, its list and its counts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    FromClause,
    Row,
    Select,
    TextClause,
    cast,
    func,
    literal,
    select,
    true,
)

from glm_backend.store.conversations import Room, tags_of
from glm_backend.store.schema import (
    conversation_tags,
    conversations,
    is_answer,
    messages,
    users,
)
from glm_backend.store.search_index import index_of
from glm_backend.store.tokens import excerpt, has_phrases, query_tokens, shows
from glm_backend.store.values import ConversationRow, Everybody, Reader, Status

_PREVIEW_CHARACTERS = 160
_TEXTS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class ConversationFilter:
    """Which conversations; the default is all of them but those in the trash.

    text: its words, or their beginnings, are in the title or together in a message of any branch;
    Chinese from one character on. What is between quotation marks stands there as it is. since,
    until: changed at or after, and begun before, these times. model, quantization, status, rating:
    of one answer in it that has them all. tag: one of its tags. user: the name of whose it is, for
    those who read everybody's. pinned, archived: None takes both. trash: those in the trash instead
    of all others.
    """

    text: str = ""
    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    quantization: str | None = None
    status: Status | None = None
    rating: int | None = None
    tag: str | None = None
    user: str | None = None
    pinned: bool | None = None
    archived: bool | None = None
    trash: bool = False


EVERYTHING = ConversationFilter()


@dataclass(frozen=True, slots=True)
class FoundConversations:
    """One page of what was found, and how many there are in all."""

    rows: list[ConversationRow]
    count: int


class Search(Room):
    """Lists of conversations: pinned ones first, then the latest change."""

    def find_conversations(
        self,
        user_id: Reader,
        *,
        limit: int,
        offset: int = 0,
        filter: ConversationFilter = EVERYTHING,
    ) -> FoundConversations:
        """One page of them and their number, of one moment."""
        with self._database.reading() as connection:
            if not _looks_inside(filter):  # both are quick, from the index alone
                rows = _listed(connection, user_id, limit, offset, filter)
                return FoundConversations(rows, _counted(connection, user_id, filter))
            # What a text or an answer finds is worth finding once for both.
            matched = _matched(connection, user_id, filter).cte("matched")
            matched = matched.prefix_with("MATERIALIZED")
            count = select(func.count()).select_from(matched).scalar_subquery()
            page = _in_order(select(matched, count.label("in_all")), matched, limit, offset)
            rows, counts = _rows(connection, page, filter.text)
            if not counts and offset:
                counts = [connection.scalar(select(func.count()).select_from(matched)) or 0]
        return FoundConversations(rows, counts[0] if counts else 0)

    def list_conversations(
        self,
        user_id: Reader,
        *,
        limit: int,
        offset: int = 0,
        filter: ConversationFilter = EVERYTHING,
    ) -> list[ConversationRow]:
        """One page of them."""
        with self._database.reading() as connection:
            return _listed(connection, user_id, limit, offset, filter)

    def count_conversations(self, user_id: Reader, filter: ConversationFilter = EVERYTHING) -> int:
        """How many there are."""
        with self._database.reading() as connection:
            return _counted(connection, user_id, filter)


def matching(
    connection: Connection, user_id: Reader, filter: ConversationFilter
) -> list[ColumnElement[bool]]:
    """The conditions on the table of conversations that `filter` stands for."""
    c = conversations.c
    conditions = [_is(c.deleted_at, filter.trash)]
    if user_id is not Everybody.EVERYBODY:
        conditions.append(c.user_id == user_id)
    if filter.user is not None:
        conditions.append(c.user_id.in_(select(users.c.id).where(users.c.name == filter.user)))
    if filter.since is not None:
        conditions.append(c.updated_at >= filter.since)
    if filter.until is not None:
        conditions.append(c.created_at < filter.until)
    if filter.pinned is not None:
        conditions.append(c.pinned == filter.pinned)
    if filter.archived is not None:
        conditions.append(_is(c.archived_at, filter.archived))
    inside = _subqueries(connection, user_id, filter)
    return [*conditions, *(_among(connection, subquery) for subquery in inside)]


def _among(connection: Connection, subquery: TextClause | Select[Any]) -> ColumnElement[bool]:
    among = conversations.c.id.in_(subquery)
    # So it stays a set that is made once. As a join, it is looked up for each conversation
    # anew where PostgreSQL has no figures of the tables yet, as after an import: for minutes.
    return among if connection.dialect.name == "sqlite" else among.is_(true())


def _is(time: ColumnElement[Any], there: bool) -> ColumnElement[bool]:
    return time.is_not(None) if there else time.is_(None)


def _looks_inside(filter: ConversationFilter) -> bool:
    """Whether it asks for more than the table of conversations holds."""
    text = any(query_tokens(filter.text))
    return text or filter.tag is not None or bool(_of_an_answer(filter))


def _subqueries(
    connection: Connection, user_id: Reader, filter: ConversationFilter
) -> Iterator[TextClause | Select[Any]]:
    """Sets of ids of conversations; what is looked for is in all of them."""
    if has_phrases(filter.text):
        yield _with_phrases(connection, user_id, filter.text)
    elif any(query_tokens(filter.text)):
        yield index_of(connection).conversations_with(filter.text)
    if filter.tag is not None:
        tagged = conversation_tags.c
        yield select(tagged.conversation_id).where(tagged.tag == filter.tag)
    if of_an_answer := _of_an_answer(filter):
        yield select(messages.c.conversation_id).where(is_answer, *of_an_answer)


def _with_phrases(connection: Connection, user_id: Reader, query: str) -> Select[Any]:
    """Those in which one text shows the query. The index knows the words of a phrase and not their
    order, so that the texts of what it finds are read."""
    c, m = conversations.c, messages.c
    candidates = [_among(connection, index_of(connection).conversations_with(query))]
    if user_id is not Everybody.EVERYBODY:
        candidates.append(c.user_id == user_id)
    titles = select(c.id, c.title).where(*candidates)
    texts = select(c.id, m.content).join_from(conversations, messages, m.conversation_id == c.id)
    texts = texts.where(*candidates, m.status != "generating")
    rows = connection.execute(
        titles.union_all(texts), execution_options={"yield_per": _TEXTS_AT_ONCE}
    )
    found = {its_id for its_id, text in rows if shows(text, query)}
    return _these(connection, sorted(found))


def _these(connection: Connection, ids: Sequence[str]) -> Select[Any]:
    """However many ids, as one value of a query."""
    given = literal(json.dumps(ids))
    if connection.dialect.name == "sqlite":
        each = func.json_each(given)
    else:
        each = func.json_array_elements_text(cast(given, JSON))
    return select(each.table_valued("value").c.value)


def _of_an_answer(filter: ConversationFilter) -> list[ColumnElement[bool]]:
    wanted = {name: getattr(filter, name) for name in _ANSWER_FIELDS}
    return [messages.c[name] == value for name, value in wanted.items() if value is not None]


_ANSWER_FIELDS = ("model", "quantization", "status", "rating")


@dataclass(slots=True)
class _Contents:
    message_count: int = 0
    models: set[str] = field(default_factory=set)
    quantizations: set[str] = field(default_factory=set)


def _matched(connection: Connection, user_id: Reader, filter: ConversationFilter) -> Select[Any]:
    c = conversations.c
    return select(c.id, c.pinned, c.updated_at).where(*matching(connection, user_id, filter))


def _listed(
    connection: Connection, user_id: Reader, limit: int, offset: int, filter: ConversationFilter
) -> list[ConversationRow]:
    matched = _matched(connection, user_id, filter).add_columns(literal(0).label("in_all"))
    return _rows(connection, _in_order(matched, conversations, limit, offset), filter.text)[0]


def _counted(connection: Connection, user_id: Reader, filter: ConversationFilter) -> int:
    conditions = matching(connection, user_id, filter)
    query = select(func.count()).select_from(conversations).where(*conditions)
    return connection.scalar(query) or 0


def _in_order(query: Select[Any], of: FromClause, limit: int, offset: int) -> Select[Any]:
    ordered = query.order_by(of.c.pinned.desc(), of.c.updated_at.desc(), of.c.id.desc())
    return ordered.limit(limit).offset(offset)


def _rows(
    connection: Connection, page: Select[Any], text: str
) -> tuple[list[ConversationRow], list[int]]:
    """The page filled in, and the column in_all of it. Only so many rows are looked at."""
    c, shown, some = conversations.c, messages.alias("shown"), page.subquery("page")
    own = (c.id, c.title, c.created_at, c.updated_at, c.deleted_at, c.archived_at, c.pinned)
    beginning = func.substr(shown.c.content, 1, _PREVIEW_CHARACTERS).label("beginning")
    query = (
        select(*own, users.c.name, beginning, some.c.in_all)
        .join_from(some, conversations, some.c.id == c.id)
        .join(users)
        .outerjoin(shown, shown.c.id == c.head_id)
        .order_by(c.pinned.desc(), c.updated_at.desc(), c.id.desc())
    )
    found = connection.execute(query).all()
    ids = [row.id for row in found]
    contents, tags = _contents(connection, ids), tags_of(connection, ids)
    rows = [
        _row(row, contents[row.id], tags[row.id], _hit(connection, row.id, text)) for row in found
    ]
    return rows, [row.in_all for row in found]


def _row(
    row: Row[*tuple[Any, ...]],
    contents: _Contents,
    tags: tuple[str, ...],
    hit: tuple[str, str] | None,
) -> ConversationRow:
    hit_id, shown = hit or (None, " ".join((row.beginning or "").split()))
    return ConversationRow(
        id=row.id,
        title=row.title,
        user=row.name,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
        archived_at=row.archived_at,
        pinned=row.pinned,
        tags=tags,
        message_count=contents.message_count,
        models=tuple(sorted(contents.models)),
        quantizations=tuple(sorted(contents.quantizations)),
        preview=shown,
        hit_id=hit_id,
    )


def _hit(connection: Connection, conversation_id: str, query: str) -> tuple[str, str] | None:
    """The first message that shows what was asked for, by its id, and the place in its text."""
    if not any(query_tokens(query)):
        return None
    texts = select(messages.c.id, messages.c.content).order_by(messages.c.seq)
    rows = connection.execute(
        texts.where(messages.c.conversation_id == conversation_id),
        execution_options={"yield_per": _TEXTS_AT_ONCE},
    )
    for message_id, content in rows:
        if shows(content, query):
            rows.close()
            return message_id, excerpt(content, query, _PREVIEW_CHARACTERS)
    return None


def _contents(connection: Connection, ids: Sequence[str]) -> dict[str, _Contents]:
    kinds = (messages.c.conversation_id, messages.c.model, messages.c.quantization)
    query = select(*kinds, func.count()).where(messages.c.conversation_id.in_(ids))
    contents = {conversation_id: _Contents() for conversation_id in ids}
    for conversation_id, model, quantization, count in connection.execute(query.group_by(*kinds)):
        its = contents[conversation_id]
        its.message_count += count
        if model is not None:
            its.models.add(model)
        if quantization is not None:
            its.quantizations.add(quantization)
    return contents
