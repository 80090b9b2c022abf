"""A million messages on their way out and in, beside what pandas does with the same table."""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from sqlalchemy import create_engine, text

from benchmarks.big_store import CONVERSATIONS, TURNS, USER, big_store
from benchmarks.process_memory import memory_bytes
from benchmarks.report import Row, median
from glm_backend.store import AnswerParameters, AnswerUpdate, Store
from glm_backend.transfer import EXPORT_FORMS, export, import_file
from glm_backend.transfer.records import CSV_COLUMNS, OF_CONVERSATION

MESSAGES = CONVERSATIONS * TURNS * 2
ROUNDS = 2
FEWER = CONVERSATIONS // 10  # conversations, for forms that nothing stands beside


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one piece of work: seconds on the clock and of the processor, growth of the process."""

    seconds: float
    processor_seconds: float
    growth_mb: float

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s ({self.processor_seconds:.1f} s of the processor), "
            f"memory growth {self.growth_mb:,.0f} MB"
        )

    @property
    def per_second(self) -> float:
        """Messages."""
        return MESSAGES / self.seconds


def rows() -> list[Row]:
    """CSV and JSONL in turn with pandas; every other form, of fewer; the way back; a long path."""
    big, smaller = big_store(), big_store(FEWER)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            *_beside_pandas(big),
            *(_once(smaller, form) for form in EXPORT_FORMS if form not in ("csv", "jsonl")),
            _import(big, folder),
            _long_path(folder),
        ]


def _beside_pandas(big: Path) -> list[Row]:
    """All of them write to nowhere: how fast a disk takes a gigabyte is another question."""
    costs: dict[str, list[Cost]] = {"csv": [], "jsonl": [], "pandas": []}
    for _ in range(ROUNDS):
        for form in ("csv", "jsonl"):
            costs[form].append(_alone(_export, big, Path(os.devnull), form))
        costs["pandas"].append(_alone(_export_with_pandas, big))
    theirs = _median(costs["pandas"])
    return [_row(form, _median(costs[form]), theirs) for form in ("csv", "jsonl")]


def _row(form: str, ours: Cost, theirs: Cost) -> Row:
    times = theirs.seconds / ours.seconds
    of_processor = theirs.processor_seconds / ours.processor_seconds
    return Row(
        f"export of {MESSAGES:,} messages, {form}",
        f"{ours.per_second:,.0f} messages/s, {ours}",
        f"pandas.read_sql and to_csv: {theirs}; {times:.1f} times as long "
        f"({of_processor:.1f} times the processor)",
        ">= 50,000/s, < 100 MB, >= 3 times as fast",
        ours.per_second >= 50_000 and ours.growth_mb < 100 and times >= 3,
    )


def _once(smaller: Path, form: str) -> Row:
    cost = _alone(_export, smaller, Path(os.devnull), form)
    messages = FEWER * TURNS * 2
    return Row(
        f"export of {messages:,} messages, {form}, once",
        f"{messages / cost.seconds:,.0f} messages/s, {cost}",
        goal="< 100 MB",
        met=cost.growth_mb < 100,
    )


def _import(big: Path, folder: Path) -> Row:
    """A JSONL of all of them into an empty store, search index and all."""
    file = folder / "all.jsonl"
    _alone(_export, big, file, "jsonl")
    cost = _alone(_import_file, file, folder / "empty.sqlite3")
    return Row(
        f"import of {MESSAGES:,} messages, a JSONL of {file.stat().st_size / 1e6:,.0f} MB",
        f"{cost.per_second:,.0f} messages/s, {cost}",
        goal=">= 10,000/s, < 100 MB",
        met=cost.per_second >= 10_000 and cost.growth_mb < 100,
    )


def _export(big: Path, out: Path, form: str) -> Cost:
    store = Store.open(f"sqlite:///{big}")
    user = store.user_named(USER)

    def work() -> None:
        with out.open("wb") as opened:
            opened.writelines(export(store, user, form))

    return _cost(work)


def _export_with_pandas(big: Path) -> Cost:
    engine = create_engine(f"sqlite:///{big}")
    of_messages = ", ".join(
        f"messages.{'id' if name == 'message_id' else name} AS {name}"
        for name in CSV_COLUMNS[len(OF_CONVERSATION) :]
    )
    query = text(
        f"""SELECT conversations.id AS conversation_id, title AS conversation_title, name AS user,
        {of_messages} FROM conversations JOIN users ON users.id = user_id
        JOIN messages ON conversation_id = conversations.id
        ORDER BY conversations.created_at, conversations.id, seq"""
    )
    with engine.connect() as connection:
        return _cost(lambda: pd.read_sql(query, connection).to_csv(os.devnull, index=False))


def _import_file(file: Path, database: Path) -> Cost:
    store = Store.open(f"sqlite:///{database}")
    user = store.ensure_user(USER)

    def work() -> None:
        with file.open("rb") as opened:
            report = import_file(store, user, opened)
        assert report.messages == MESSAGES

    return _cost(work)


def _cost(work: Callable[[], object]) -> Cost:
    before = memory_bytes("VmHWM")
    began, processor = time.perf_counter(), time.process_time()
    work()
    return Cost(
        time.perf_counter() - began,
        time.process_time() - processor,
        (memory_bytes("VmHWM") - before) / 2**20,
    )


def _alone(work: Callable[..., Cost], *arguments: object) -> Cost:
    """In a process of its own: the peak of one is not to hide that of the next."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _median(costs: list[Cost]) -> Cost:
    columns = zip(*(dataclasses.astuple(cost) for cost in costs), strict=True)
    return Cost(*map(statistics.median, columns))


def _long_path(folder: Path) -> Row:
    store = Store.open(f"sqlite:///{folder / 'long.sqlite3'}")
    user = store.ensure_user(USER)
    conversation, parent = store.create_conversation(user, title="Long").id, None
    answer = AnswerParameters("bench", "none", 0.8, 0.8, 0, 1.0, 512, seed=1)
    for _ in range(500):
        _, given = store.begin_turn(user, conversation, parent, "word " * 40, answer, "x/1/1/x")
        store.write_answers([AnswerUpdate(given.id, "word " * 80, "complete")])
        parent = given.id

    def once() -> float:
        began = time.perf_counter()
        assert len(store.path(user, conversation)) == 1000
        return (time.perf_counter() - began) * 1000

    row = Row(
        "reading a conversation of 1,000 messages from the database", f"{median(once):.0f} ms"
    )
    store.close()
    return row
