"""What goes wrong with databases, provoked for real: each is told by its own error."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from sqlalchemy import Connection, event

from glm_backend.errors import (
    InvalidParameter,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreTooNew,
)
from glm_backend.store import AnswerUpdate, Store
from glm_backend.store.health import examine
from tests.store.talk import ANSWER, ask

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database with one conversation, closed."""
    file = tmp_path / "glm.sqlite3"
    store = Store.open(f"sqlite:///{file}")
    user_id = store.ensure_user("local")
    ask(store, user_id, store.create_conversation(user_id).id)
    store.close()
    return file


def test_a_database_that_another_program_holds_is_locked_not_broken(file: Path) -> None:
    store = Store.open(f"sqlite:///{file}?timeout=0.05")
    user_id = store.ensure_user("local")
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match=r"glm\.sqlite3 is locked"):
            store.create_conversation(user_id)
        assert store.count_conversations(user_id) == 1
        other.execute("ROLLBACK")
    store.create_conversation(user_id)
    store.close()


def test_a_new_database_that_another_program_holds_is_locked(tmp_path: Path) -> None:
    file = tmp_path / "new.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreLocked):
            Store.open(f"sqlite:///{file}?timeout=0.05")


def test_a_read_only_database_is_read_and_refuses_to_be_written(file: Path) -> None:
    store = Store.open(f"sqlite:///file:{file}?mode=ro&uri=true")
    user_id = store.ensure_user("local")
    row = store.list_conversations(user_id, limit=1)[0]
    assert [m.content for m in store.path(user_id, row.id)] == ["你好", "Hello!"]
    with pytest.raises(StoreReadOnly, match="read-only"):
        store.rename(user_id, row.id, "new")
    store.close()


_AS_NOBODY = """
import os, sys
from glm_backend.errors import StoreReadOnly
from glm_backend.store import Store
os.setgid(65534)
os.setuid(65534)
store = Store.open(sys.argv[1])
user_id = store.ensure_user("local")
print(store.count_conversations(user_id))
try:
    store.create_conversation(user_id)
except StoreReadOnly as error:
    print(error.code)
store.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try it as another account")
@pytest.mark.parametrize("folder_mode", [0o555, 0o777])
def test_a_file_that_the_account_may_only_read_is_read(file: Path, folder_mode: int) -> None:
    folder = Path("/var/tmp") / f"glm-read-only-{os.getpid()}"  # every account may go there
    folder.mkdir()
    try:
        copy = shutil.copy(file, folder / "glm #1 %41?.sqlite3")
        copy.chmod(0o444)
        folder.chmod(folder_mode)
        command = [sys.executable, "-c", _AS_NOBODY, f"sqlite:///{quote(str(copy))}"]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(folder)
    assert done.stdout.split() == ["1", "StoreReadOnly"]


def test_a_read_only_database_of_an_older_revision_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "empty.sqlite3"
    sqlite3.connect(file).close()
    file.touch()
    with pytest.raises(StoreReadOnly):
        Store.open(f"sqlite:///file:{file}?mode=ro&uri=true")


def test_a_full_disk_is_told_and_the_same_write_works_when_there_is_room(file: Path) -> None:
    store = Store.open(f"sqlite:///{file}")
    limits = [1]

    @event.listens_for(store._database._engine, "begin", insert=True)
    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {limits[-1]}")

    user_id = store.ensure_user("local")
    row = store.list_conversations(user_id, limit=1)[0]
    limits.append(2**30)
    _, answer = store.begin_turn(user_id, row.id, None, "q", ANSWER, "me")
    update = AnswerUpdate(answer.id, "many words " * 10_000, "complete")
    limits.append(1)
    with pytest.raises(StoreFull, match="full"):
        store.write_answers([update])
    assert store.path(user_id, row.id)[-1].content == ""
    limits.append(2**30)
    store.write_answers([update])
    assert store.path(user_id, row.id)[-1].content == update.content
    store.close()


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"just some notes of mine, no database\n" * 100)
    before = file.read_bytes()
    with pytest.raises(StoreDamaged, match=r"notes\.txt is not a usable database"):
        Store.open(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_damaged_page_is_told_when_it_is_met(file: Path) -> None:
    store = Store.open(f"sqlite:///{file}")
    user_id = store.ensure_user("local")
    for _ in range(50):
        ask(store, user_id, store.create_conversation(user_id).id, "q" * 5000)
    store.close()
    pages = file.read_bytes()
    file.write_bytes(pages[:4096] + b"\xff" * (len(pages) - 4096))
    with pytest.raises(StoreDamaged), closing(Store.open(f"sqlite:///{file}")) as damaged:
        damaged.list_conversations(user_id, limit=10)


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(file)) as other:
        other.execute("CREATE TABLE users (id INTEGER)")
        other.commit()
    before = file.read_bytes()
    for opens in (Store.open, examine):
        with pytest.raises(StoreDamaged, match="another program"):
            opens(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_database_of_a_newer_version_is_refused_unharmed(file: Path) -> None:
    with closing(sqlite3.connect(file)) as future:
        future.execute("UPDATE alembic_version SET version_num = '9999'")
        future.commit()
    before = file.read_bytes()
    with pytest.raises(StoreTooNew, match="9999"):
        Store.open(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:////no/such/folder/glm.sqlite3", "unable to open"),
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("nonsense", "GLM_DATABASE_URL"),
        ("nosuchbase://user:hunter2@host/db", "nosuchbase"),
        ("postgresql+nodriver://user:hunter2@host/db", "nodriver"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_its_password(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        Store.open(url)
    assert "hunter2" not in str(caught.value)


def test_a_number_that_no_database_can_keep_is_refused(store: Store, user_id: str) -> None:
    with pytest.raises(InvalidParameter, match="64 bits"):
        store.list_conversations(user_id, limit=10, offset=2**80)
