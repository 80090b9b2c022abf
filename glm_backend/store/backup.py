"""Copies of a SQLite database, made while it is used.

PostgreSQL has programs of its own for this, which the error names.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy.engine import URL

from glm_backend.errors import FileExists, NoSuchFile, OtherBackup
from glm_backend.store.database import Database
from glm_backend.store.sqlite import kind_of

_PAGES_A_STEP = 2000  # 8 MB: so often progress is told

Progress = Callable[[float], object]


def file_of(database: Database) -> Path:
    """The file of a SQLite database; raises OtherBackup for another one."""
    if not database.is_sqlite:
        url = database.url
        shown = URL.create(  # as its programs read it; without the password
            "postgresql", url.username, None, url.host, url.port, url.database, url.query
        )
        raise OtherBackup(database=database.name, url=shown.render_as_string())
    name = str(database.url.database).removeprefix("file:")
    return Path(name.partition("?")[0])


def back_up(url: str, file: Path, on_progress: Progress = lambda done: None) -> None:
    """Writes the database at `url`, as it is at this moment, into a new file.

    Others read and write on meanwhile. on_progress: called with the part that is done, 0 to 1.
    Raises FileExists for a file that is there already, OtherBackup for PostgreSQL, StoreFull,
    StoreDamaged, StoreError.
    """
    source = file_of(Database(url))
    if file.exists():
        raise FileExists(file=str(file))
    copy(source, file, on_progress)


def copy(source: Path, target: Path, on_progress: Progress = lambda done: None) -> None:
    """Copies a database file with what stands in its log; the target appears whole, on the disk.

    Only its owner can read it.
    """
    partial = target.with_name(f".{target.name}.partial")
    with told_of(source):
        partial.unlink(missing_ok=True)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _copy_pages(source, partial, on_progress)
            os.fsync(descriptor)
            partial.replace(target)
        finally:
            os.close(descriptor)
            partial.unlink(missing_ok=True)


def _copy_pages(source: Path, target: Path, on_progress: Progress) -> None:
    with (
        closing(sqlite3.connect(read_only(source), uri=True)) as reader,
        closing(sqlite3.connect(target, isolation_level=None)) as writer,
    ):
        # One look for the whole copy: what is written meanwhile is not in it, and does not make
        # it begin anew.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master")
        reader.backup(
            writer,
            pages=_PAGES_A_STEP,
            progress=lambda status, left, pages: on_progress(1 - left / max(pages, 1)),
        )
        writer.execute("PRAGMA journal_mode = DELETE")  # one file, readable anywhere


def read_only(file: Path) -> str:
    """The address of the file for reading only."""
    return f"file:{quote(str(file.absolute()))}?mode=ro"


@contextmanager
def told_of(file: Path) -> Iterator[None]:
    """Makes errors of ours of those that SQLite has with this file."""
    if not file.is_file():
        raise NoSuchFile(file=str(file))
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise kind_of(error)(database=str(file), reason=str(error)) from error
