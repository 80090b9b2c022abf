"""What was used: messages, tokens, speeds and ratings by day, user, model and precision.

The sums are kept in the transaction that writes what they count, so that a chart over years needs
no look at the messages. They stay when a conversation is erased. What is imported counts on the
days it was written; a fork, which is a copy, does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, RowMapping, func, select

from glm_backend.store.columns import timestamp_text
from glm_backend.store.conversations import Room
from glm_backend.store.schema import usage_days, users
from glm_backend.store.upserts import add_to
from glm_backend.store.values import Everybody, Reader

_Row = Mapping[str, Any] | RowMapping
_Key = tuple[str, str, str]
_NAMES = usage_days.columns.keys()
_NOTHING = [0] * sum(not column.primary_key for column in usage_days.columns)

Kind = Literal["day", "user", "model", "quantization"]
_KINDS: dict[Kind, ColumnElement[Any]] = {
    "day": usage_days.c.day,
    "user": users.c.name,
    "model": usage_days.c.model,
    "quantization": usage_days.c.quantization,
}
_MEANS = ("tokens_per_s", "ttft_ms")
_sums = [func.sum(c).label(c.name) for c in usage_days.columns if not c.primary_key]


@dataclass(frozen=True, slots=True)
class Used:
    """What was used of one kind: sums, and means over the `timed_answers`, whose speed is known.

    The kinds that were not asked for are "". A day is one of UTC, as 2026-11-24.
    """

    questions: int
    answers: int
    prompt_tokens: int
    completion_tokens: int
    timed_answers: int
    tokens_per_s: float | None
    ttft_ms: float | None
    rated_good: int
    rated_bad: int
    day: str = ""
    user: str = ""
    model: str = ""
    quantization: str = ""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one model answered at one precision: means over `answers` answers."""

    model: str
    quantization: str
    answers: int
    tokens_per_s: float
    ttft_ms: float


class Usage(Room):
    """Figures over all messages, those of deleted conversations included."""

    def usage(
        self,
        user_id: Reader,
        *kinds: Kind,
        since: date | None = None,
        until: date | None = None,
    ) -> list[Used]:
        """Sums by these kinds, in their order; since, until: only these days, both included."""
        by = [_KINDS[kind].label(kind) for kind in kinds]
        query = select(*by, *_sums).join_from(usage_days, users).group_by(*by).order_by(*by)
        conditions = _read_by(user_id)
        if since is not None:
            conditions.append(usage_days.c.day >= since.isoformat())
        if until is not None:
            conditions.append(usage_days.c.day <= until.isoformat())
        with self._database.reading() as connection:
            rows = connection.execute(query.where(*conditions)).all()
        # Without kinds there is one row always, of nulls where nothing was used.
        return [_used(row._mapping) for row in rows if row.questions is not None]

    def speeds(self, user_id: str) -> list[Speed]:
        """One entry for each model and precision that has answered, by name."""
        return [
            Speed(its.model, its.quantization, its.timed_answers, its.tokens_per_s, its.ttft_ms)
            for its in self.usage(user_id, "model", "quantization")
            if its.tokens_per_s is not None and its.ttft_ms is not None
        ]

    def models_used(self, user_id: Reader) -> list[str]:
        """The models that answered, by name."""
        query = select(usage_days.c.model).distinct().where(usage_days.c.model != "")
        with self._database.reading() as connection:
            return sorted(connection.scalars(query.where(*_read_by(user_id))))


def _read_by(user_id: Reader) -> list[ColumnElement[bool]]:
    return [] if user_id is Everybody.EVERYBODY else [usage_days.c.user_id == user_id]


def _used(row: RowMapping) -> Used:
    values: dict[str, Any] = {name: row[name] for name in _KINDS if name in row}
    # PostgreSQL adds whole numbers up to decimals.
    values |= {c.name: int(row[c.name]) for c in _sums if c.name not in _MEANS}
    timed = values["timed_answers"]
    values |= {name: row[name] / timed if timed else None for name in _MEANS}
    return Used(**values)


def add_usage(connection: Connection, user_id: str, rows: Iterable[_Row], *, sign: int = 1) -> None:
    """Counts messages, given with the columns of their table; `sign` -1 takes them back.

    Times may be texts, as they are kept.

    An answer counts when it has ended. A question counts with the model that answered it first,
    as far as that answer is among the rows.
    """
    rows = [row for row in rows if row["status"] != "generating"]
    first = {
        row["parent_id"]: row for row in rows if row["role"] == "assistant" and row["branch"] == 1
    }
    counted: defaultdict[_Key, list[Sequence[float]]] = defaultdict(list)
    for row in rows:
        kind = first.get(row["id"], row) if row["role"] == "user" else row
        counted[_key(row["created_at"], kind)].append(_counted(row))
    # In one order, so that two who count at once never wait for each other in a circle.
    sums = [
        (*key, *(sign * sum(column) for column in zip(*counted[key], strict=True)))
        for key in sorted(counted)
    ]
    _add(connection, user_id, sums)


def add_ratings(
    connection: Connection, user_id: str, answer: _Row, *, taken: int | None, given: int | None
) -> None:
    """Counts a rating that is given, and no longer the one that it replaces."""
    good = ((given or 0) > 0) - ((taken or 0) > 0)
    bad = ((given or 0) < 0) - ((taken or 0) < 0)
    _add(connection, user_id, [(*_key(answer["created_at"], answer), *_NOTHING[2:], good, bad)])


def _add(connection: Connection, user_id: str, rows: Sequence[Sequence[object]]) -> None:
    values = [dict(zip(_NAMES, (user_id, *row), strict=True)) for row in rows]
    add_to(connection, usage_days, values)


def _key(created_at: datetime | str, kind: _Row) -> _Key:
    kept = created_at if isinstance(created_at, str) else timestamp_text(created_at)
    return kept[:10], kind["model"] or "", kind["quantization"] or ""


def _counted(row: _Row) -> Sequence[float]:
    """What one message adds to each of the sums, in their order."""
    timed = row["tokens_per_s"] is not None
    rating = row["rating"] or 0
    return (
        int(row["role"] == "user"),
        int(row["role"] == "assistant"),
        row["prompt_tokens"] or 0,
        row["completion_tokens"] or 0,
        int(timed),
        row["tokens_per_s"] or 0,
        (row["ttft_ms"] or 0) if timed else 0,
        int(rating > 0),
        int(rating < 0),
    )
