"""The history at size: lists, searches, filters and charts over 1,000,000 messages."""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.big_store import CONVERSATIONS, RARE, USER, big_store
from benchmarks.report import Row
from glm_backend.store import ConversationFilter, Everybody, Store

PAGE = 20
RUNS = 5
GOAL_MS = 500
RARE_GOAL_MS = 200

_NAIVE = """
    SELECT DISTINCT c.id, c.title FROM conversations AS c
    LEFT JOIN messages AS m ON m.conversation_id = c.id
    WHERE c.deleted_at IS NULL AND (c.title LIKE ? OR m.content LIKE ?)
    ORDER BY c.updated_at DESC LIMIT 20
"""


@dataclass(frozen=True, slots=True)
class _Case:
    """A page of the list with its count. like: what a LIKE would look for."""

    what: str
    filter: ConversationFilter
    goal_ms: int = GOAL_MS
    like: str = ""


_SPRING = datetime(2025, 3, 1, tzinfo=UTC)
_CASES = [
    _Case("a rare word", ConversationFilter(text=RARE), RARE_GOAL_MS, RARE),
    _Case("a word being typed (two letters)", ConversationFilter(text="ba"), like="ba"),
    _Case("one Chinese character", ConversationFilter(text="一"), like="一"),
    _Case("two Chinese characters", ConversationFilter(text="一丁"), like="一丁"),
    _Case("two words", ConversationFilter(text="bada cafo")),
    _Case("a word of nowhere", ConversationFilter(text="qqqqqq"), like="qqqqqq"),
    _Case("model", ConversationFilter(model="glm-4-9b-chat")),
    _Case("model and precision", ConversationFilter(model="chatglm3-6b", quantization="int4")),
    _Case("status failed", ConversationFilter(status="failed")),
    _Case("status complete", ConversationFilter(status="complete")),
    _Case("rated bad", ConversationFilter(rating=-1)),
    _Case("tag", ConversationFilter(tag="季度报告")),
    _Case("a month", ConversationFilter(since=_SPRING, until=_SPRING.replace(month=4))),
    _Case("archived", ConversationFilter(archived=True)),
    _Case("pinned", ConversationFilter(pinned=True)),
    _Case("trash", ConversationFilter(trash=True)),
    _Case("word, model and month", ConversationFilter("ba", _SPRING, None, "chatglm2-6b")),
]


def rows() -> list[Row]:
    """Every figure is a page of 20 and the count of all, as the history page asks for them."""
    file = big_store()
    store = Store.open(f"sqlite:///{file}")
    user = store.user_named(USER)
    found = [
        _page(store, user, "first page", ConversationFilter(archived=False)),
        _page(store, user, "last page", ConversationFilter(archived=False), CONVERSATIONS - 6000),
        _page(store, Everybody.EVERYBODY, "first page of everybody's", ConversationFilter()),
        *(_case(store, user, case, file) for case in _CASES),
        *_charts(store, user),
    ]
    store.close()
    return found


def _page(
    store: Store, user: str | Everybody, what: str, filter: ConversationFilter, offset: int = 0
) -> Row:
    count, milliseconds = _timed(lambda: _ask(store, user, filter, offset))
    return Row(
        f"history, {what}",
        f"{milliseconds:.0f} ms",
        f"{count:,} conversations",
        f"< {GOAL_MS} ms",
        milliseconds < GOAL_MS,
    )


def _case(store: Store, user: str, case: _Case, file: Path) -> Row:
    count, milliseconds = _timed(lambda: _ask(store, user, case.filter))
    against = f"{count:,} found"
    if case.like:
        _, naive = _timed(lambda: _like(file, case.like), runs=3)
        against += f"; LIKE without the count {naive:,.0f} ms: {naive / milliseconds:.1f} times"
    kind = "search" if case.filter.text else "filter"
    return Row(
        f"history, {kind}: {case.what}",
        f"{milliseconds:.0f} ms",
        against,
        f"< {case.goal_ms} ms",
        milliseconds < case.goal_ms,
    )


def _charts(store: Store, user: str) -> list[Row]:
    days, by_day = _timed(lambda: len(store.usage(user, "day", "model")))
    users, by_user = _timed(lambda: len(store.usage(Everybody.EVERYBODY, "user")))
    return [
        Row("usage by day and model", f"{by_day:.0f} ms", f"{days:,} rows"),
        Row("usage by user", f"{by_user:.0f} ms", f"{users:,} rows"),
    ]


def _ask(store: Store, user: str | Everybody, filter: ConversationFilter, offset: int = 0) -> int:
    return store.find_conversations(user, limit=PAGE, offset=offset, filter=filter).count


def _like(file: Path, text: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return len(connection.execute(_NAIVE, [f"%{text}%"] * 2).fetchall())


def _timed(do: Callable[[], int], runs: int = RUNS) -> tuple[int, float]:
    """What it gives, and the median of its milliseconds."""
    taken, result = [], 0
    for _ in range(runs):
        began = time.perf_counter()
        result = do()
        taken.append((time.perf_counter() - began) * 1000)
    return result, statistics.median(taken)
