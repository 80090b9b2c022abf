"""The history at size: exporting 100,000 messages, opening a conversation of 1,000."""

from __future__ import annotations

import resource
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert, update

from benchmarks.report import Row, median
from glm_backend.store import AnswerParameters, Store
from glm_backend.store.schema import conversations, messages
from glm_backend.transfer import export_csv, export_json

CONVERSATIONS = 100
TURNS = 500  # a question and an answer each: 100,000 messages
FIGURES = {
    **asdict(AnswerParameters("bench", "none", 0.8, 0.8, 0, 1.0, 512, seed=1)),
    "prompt_tokens": 40,
    "completion_tokens": 90,
    "ttft_ms": 100.5,
    "duration_ms": 3000.5,
    "tokens_per_s": 31.2,
    "finish_reason": "stop",
}
TEXT = "The quick brown fox jumps over the lazy dog. 敏捷的棕色狐狸跳过了懒狗。" * 4


def rows() -> list[Row]:
    """Both file forms, and the path that the chat page reads."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{Path(folder) / 'bench.sqlite3'}")
        user = store.ensure_user("bench")
        ids = _filled(store, user)
        found = [
            _export("CSV", lambda: export_csv(store, user)),
            _export("JSON", lambda: export_json(store, user)),
            _path(store, user, ids[0]),
        ]
        store.close()
    return found


def _filled(store: Store, user: str) -> list[str]:
    """Conversations written with the store's own schema, many rows a statement."""
    ids = [store.create_conversation(user, title=f"No. {n}").id for n in range(CONVERSATIONS)]
    for conversation in ids:
        rows = list(_messages(conversation))
        with store._database.writing() as connection:
            connection.execute(insert(messages), rows)
            here = update(conversations).where(conversations.c.id == conversation)
            connection.execute(here.values(head_id=rows[-1]["id"]))
    return ids


def _messages(conversation: str) -> Iterator[dict[str, object]]:
    parent, now = None, datetime.now(UTC)
    empty = {column.name: None for column in messages.columns}
    for seq in range(1, 2 * TURNS + 1):
        place = {"id": uuid.uuid4().hex, "conversation_id": conversation, "parent_id": parent}
        parent = place["id"]
        order = {"seq": seq, "turn": (seq + 1) // 2, "branch": 1, "created_at": now}
        said = {"role": "user" if seq % 2 else "assistant", "content": TEXT, "status": "complete"}
        figures = {} if seq % 2 else FIGURES
        yield {**empty, **place, **order, **said, **figures}


def _export(form: str, export: Callable[[], Iterator[bytes]]) -> Row:
    sum(len(chunk) for chunk in export())  # warms the file cache, as a used database is
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    messages = 2 * CONVERSATIONS * TURNS

    def once() -> float:
        started = time.perf_counter()
        sum(len(chunk) for chunk in export())
        return time.perf_counter() - started

    seconds = median(once)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return Row(
        f"export of {messages:,} messages, {form}",
        f"{seconds:.2f} s, {messages / seconds:,.0f} messages/s",
        f"memory growth {growth:.0f} MB",
        "< 5 s, < 100 MB",
        seconds < 5 and growth < 100,
    )


def _path(store: Store, user: str, conversation: str) -> Row:
    def once() -> float:
        started = time.perf_counter()
        assert len(store.path(user, conversation)) == 2 * TURNS
        return (time.perf_counter() - started) * 1000

    return Row(
        "reading a conversation of 1,000 messages from the database", f"{median(once):.0f} ms"
    )
