"""The database is away while an answer is written: a killed server, a full disk, a killed process.

The answer goes on in memory, says that it is not saved, and is saved when the store is back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_backend.chat import ChatService
from glm_backend.errors import StoreAway, StoreFull
from glm_backend.live_answer import LiveAnswer
from glm_backend.store import ConversationFilter, Store
from glm_backend.testing import FakeModel
from tests.chat.killed import Killed
from tests.postgres import PostgresServer

WORDS = [f"w{n} " for n in range(120)]


def _until_it_cannot_be_saved(answer: LiveAnswer) -> None:
    for _ in answer.tail(50):
        if answer.save_error is not None:
            return
    raise AssertionError("it was saved all the time")


def test_an_answer_outlives_a_database_server_that_is_killed(
    postgres: PostgresServer, postgres_url: str
) -> None:
    store = Store.open(postgres_url)
    chat = ChatService(store, lambda: FakeModel(WORDS, pause_s=0.02))
    user = store.ensure_user("local")
    conversation = store.create_conversation(user).id
    answer = chat.send(user, conversation, "count")
    next(answer.tail())
    postgres.kill()
    try:
        _until_it_cannot_be_saved(answer)
        assert isinstance(answer.save_error, StoreAway)
        with pytest.raises(StoreAway):
            store.path(user, conversation)
        assert "".join(answer.tail()) == "".join(WORDS)
        assert (answer.running, answer.saved) == (False, False)
    finally:
        postgres.start()
    assert answer.wait_saved(20)
    assert answer.save_error is None
    kept = store.path(user, conversation)[-1]
    assert (kept.status, kept.content) == ("complete", "".join(WORDS))
    assert store.count_conversations(user, ConversationFilter(text="w119")) == 1
    chat.close()
    store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_answer_outlives_a_full_disk(small_disk: Path) -> None:
    store = Store.open(f"sqlite:///{small_disk / 'chat.sqlite3'}")
    words = [f"{word}{'x' * 500} " for word in WORDS]
    chat = ChatService(store, lambda: FakeModel(words, pause_s=0.02, context_length=10**6))
    user = store.ensure_user("local")
    conversation = store.create_conversation(user).id
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 100_000))
    answer = chat.send(user, conversation, "count")
    _until_it_cannot_be_saved(answer)
    assert isinstance(answer.save_error, StoreFull)
    assert store.path(user, conversation)[0].content == "count"
    assert "".join(answer.tail()) == "".join(words)
    filler.unlink()
    assert answer.wait_saved(10)
    assert store.path(user, conversation)[-1].content == "".join(words)
    chat.close()
    store.close()


def test_processes_killed_at_any_moment_lose_no_message(tmp_path: Path) -> None:
    # How far behind the answers were is measured by `python -m benchmarks durability`.
    killed = Killed(tmp_path)
    deaths = [killed.run() for _ in range(4)]
    assert sum(death.answers for death in deaths) > 0
