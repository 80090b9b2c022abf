"""Copies of a database in use, and a copy put in its place."""

from __future__ import annotations

import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from glm_backend.errors import (
    FileExists,
    NoSuchFile,
    OtherBackup,
    StoreDamaged,
    StoreLocked,
    StoreTooNew,
)
from glm_backend.store import ConversationFilter, Store
from glm_backend.store.backup import back_up
from glm_backend.store.health import examine
from glm_backend.store.restore import restore
from tests.store.talk import ask
from tests.store.test_migrations import at_first_revision


def _now() -> datetime:
    return datetime(2026, 11, 24, 1, 50, tzinfo=UTC)


@pytest.fixture
def backup(sqlite_url: str, tmp_path: Path) -> Path:
    """A copy of a database with one conversation, which has a second one by now."""
    store = Store.open(sqlite_url)
    user = store.ensure_user("local")
    ask(store, user, store.create_conversation(user).id, "第一 question")
    back_up(sqlite_url, tmp_path / "copy.sqlite3")
    ask(store, user, store.create_conversation(user).id, "second question")
    store.close()
    return tmp_path / "copy.sqlite3"


def _questions(url: str) -> list[str]:
    store = Store.open(url)
    rows = store.list_conversations(store.ensure_user("local"), limit=9)
    found = store.count_conversations(
        store.ensure_user("local"), ConversationFilter(text="question")
    )
    store.close()
    assert found == len(rows)
    return [row.title for row in rows]


def test_a_copy_made_while_others_write_is_whole(sqlite_url: str, tmp_path: Path) -> None:
    store = Store.open(sqlite_url)
    user = store.ensure_user("local")
    for _ in range(50):
        ask(store, user, store.create_conversation(user).id, "q" * 20_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            ask(store, user, store.create_conversation(user).id, "more")

    writer = threading.Thread(target=write)
    writer.start()
    done: list[float] = []
    back_up(sqlite_url, tmp_path / "copy.sqlite3", done.append)
    stop.set()
    writer.join()
    store.close()
    assert done == sorted(done)
    assert done[-1] == 1.0
    copy = f"sqlite:///{tmp_path / 'copy.sqlite3'}"
    health = examine(copy)
    assert (health.problems, health.messages % 2) == ((), 0)
    assert health.conversations >= 50
    assert stat.S_IMODE((tmp_path / "copy.sqlite3").stat().st_mode) == 0o600
    store = Store.open(copy)
    found = store.count_conversations(user, ConversationFilter(text="more"))
    assert found == (health.messages - 100) / 2  # a question is there with its answer or not at all
    store.close()


def test_a_file_that_is_there_is_not_overwritten(sqlite_url: str, backup: Path) -> None:
    before = backup.read_bytes()
    with pytest.raises(FileExists):
        back_up(sqlite_url, backup)
    assert backup.read_bytes() == before


def test_a_backup_becomes_the_database_and_the_replaced_one_is_kept(
    sqlite_url: str, backup: Path, tmp_path: Path
) -> None:
    kept = restore(sqlite_url, backup, _now)
    assert _questions(sqlite_url) == ["第一 question"]
    assert kept == tmp_path / "glm.sqlite3.replaced-20261124-015000"
    assert _questions(f"sqlite:///{kept}") == ["second question", "第一 question"]
    assert _questions(f"sqlite:///{backup}") == ["第一 question"]


def test_a_backup_becomes_a_database_where_there_was_none(backup: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite3'}"
    assert restore(url, backup, _now) is None
    assert _questions(url) == ["第一 question"]


def test_an_older_backup_is_migrated_when_it_is_opened(
    empty_sqlite_url: str, tmp_path: Path
) -> None:
    old = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    at_first_revision(old)
    restore(empty_sqlite_url, tmp_path / "old.sqlite3", _now)
    store = Store.open(empty_sqlite_url)
    assert store.conversation("u1", "c1").title == "天气 notes"
    store.close()


def test_a_damaged_database_is_replaced_with_its_log(
    sqlite_url: str, backup: Path, tmp_path: Path
) -> None:
    file = tmp_path / "glm.sqlite3"
    file.write_bytes(b"\xff" * 100_000)
    log = tmp_path / "glm.sqlite3-wal"
    log.write_bytes(b"what was in the log")
    kept = restore(sqlite_url, backup, _now)
    assert kept is not None
    assert kept.read_bytes() == b"\xff" * 100_000
    assert kept.with_name(f"{kept.name}-wal").read_bytes() == b"what was in the log"
    assert _questions(sqlite_url) == ["第一 question"]


def _damage_a_page(file: Path) -> None:
    pages = file.read_bytes()
    middle = len(pages) // 2 // 4096 * 4096
    file.write_bytes(pages[:middle] + b"\xff" * 4096 + pages[middle + 4096 :])


def _cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8192])


def _write_notes(file: Path) -> None:
    file.write_bytes(b"notes, no database" * 1000)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _make_newer(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()


@pytest.mark.parametrize("spoil", [_damage_a_page, _cut_off, _write_notes, _empty, _make_newer])
def test_what_is_no_whole_backup_of_ours_is_refused_and_nothing_changes(
    sqlite_url: str, backup: Path, tmp_path: Path, spoil: object
) -> None:
    spoil(backup)  # type: ignore[operator]
    spoilt, files = backup.read_bytes(), sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(
        StoreTooNew if spoil is _make_newer else StoreDamaged, match=r"copy\.sqlite3"
    ):
        restore(sqlite_url, backup, _now)
    assert backup.read_bytes() == spoilt
    assert sorted(p.name for p in tmp_path.iterdir()) == files
    assert _questions(sqlite_url) == ["second question", "第一 question"]


def test_a_database_in_use_is_not_replaced(sqlite_url: str, backup: Path) -> None:
    running = Store.open(sqlite_url)
    user = running.ensure_user("local")
    with pytest.raises(StoreLocked):
        restore(sqlite_url, backup, _now)
    assert running.count_conversations(user) == 2
    ask(running, user, running.create_conversation(user).id, "third question")
    running.close()
    assert len(_questions(sqlite_url)) == 3


def test_a_file_that_is_not_there_is_named(empty_sqlite_url: str, tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile, match="nothing"):
        restore(empty_sqlite_url, tmp_path / "nothing", _now)
    with pytest.raises(NoSuchFile, match=r"glm\.sqlite3"):
        back_up(empty_sqlite_url, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_postgresql_has_programs_of_its_own_which_are_named(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:hunter2@db.example:5433/glm"
    for attempt in (
        lambda: back_up(url, tmp_path / "copy"),
        lambda: restore(url, tmp_path / "copy", _now),
    ):
        with pytest.raises(OtherBackup, match="pg_dump --format=custom") as caught:
            attempt()
        assert "--dbname='postgresql://me@db.example:5433/glm'" in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_health_tells_what_is_there_and_what_is_wrong(
    url: str, sqlite_url: str, tmp_path: Path
) -> None:
    assert examine(f"sqlite:///{tmp_path / 'none.sqlite3'}").revision is None
    assert not (tmp_path / "none.sqlite3").exists()
    store = Store.open(url)
    user = store.ensure_user("local")
    ask(store, user, store.create_conversation(user).id, "q" * 100_000)
    store.close()
    health = examine(url)
    assert (health.conversations, health.messages, health.problems) == (1, 2, ())
    assert health.revision == health.newest_revision
    assert health.size_bytes > 100_000


def test_health_names_a_damaged_page(sqlite_url: str, tmp_path: Path) -> None:
    store = Store.open(sqlite_url)
    user = store.ensure_user("local")
    for _ in range(50):
        ask(store, user, store.create_conversation(user).id, "q" * 5000)
    store.close()
    shutil.copy(tmp_path / "glm.sqlite3", tmp_path / "damaged.sqlite3")
    _damage_a_page(tmp_path / "damaged.sqlite3")
    assert examine(f"sqlite:///{tmp_path / 'damaged.sqlite3'}").problems
    assert not examine(sqlite_url).problems
