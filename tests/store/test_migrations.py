"""Revisions: they lead to the schema that the program uses, however many open it first."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from glm_backend.store import Store
from glm_backend.store.schema import metadata

_ROOT = Path(__file__).parents[2]


def test_the_revisions_lead_to_the_schema(store: Store) -> None:
    with store._database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        inspector = inspect(connection)
        for table in metadata.tables.values():
            kept = {key["name"]: key["options"] for key in inspector.get_foreign_keys(table.name)}
            meant = {key.name: {"ondelete": key.ondelete} for key in table.foreign_key_constraints}
            assert kept == meant


def test_sqlite_is_set_up_to_lose_nothing(store: Store) -> None:
    with store._database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 2,
        "busy_timeout": 5000,
    }


def test_opening_again_changes_nothing(url: str, tmp_path: Path) -> None:
    Store.open(url).close()
    before = (tmp_path / "glm.sqlite3").read_bytes()
    Store.open(url).close()
    assert (tmp_path / "glm.sqlite3").read_bytes() == before


def test_a_folder_name_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "数据 100%41 #1?"
    folder.mkdir()
    store = Store.open(f"sqlite:///{quote(str(folder))}/glm.sqlite3")
    assert store.ensure_user("local")
    store.close()
    assert (folder / "glm.sqlite3").is_file()


def test_many_threads_open_a_new_database_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store.open(url), range(8)))
    assert len({store.ensure_user("local") for store in stores}) == 1
    for store in stores:
        store.close()


def test_processes_open_a_new_database_at_once(url: str) -> None:
    program = (
        "import sys; from glm_backend.store import Store; s = Store.open(sys.argv[1]);"
        "print(s.ensure_user('local')); s.close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    ids = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(ids)) == 1
