"""SQLite: how a file is opened so that nothing is lost, and what its errors mean."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from glm_backend.errors import (
    Phrase,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)

_BUSY_TIMEOUT_S = 5.0
_WAL_TRIES, _WAL_PAUSE_S = 5, 0.02
_CACHE_KIB = 16 * 1024  # of pages, a connection

#: Primary result codes of https://www.sqlite.org/rescode.html.
_ERRORS: dict[int, type[StoreError]] = {
    sqlite3.SQLITE_BUSY: StoreLocked,
    sqlite3.SQLITE_LOCKED: StoreLocked,
    sqlite3.SQLITE_READONLY: StoreReadOnly,
    sqlite3.SQLITE_CORRUPT: StoreDamaged,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_NOTADB: StoreDamaged,
}


def name_of(url: URL) -> str:
    """What people know the database by."""
    return url.database or str(url)


def open_engine(url: URL) -> Engine:
    """Connections to one file. Raises StoreError for a database in memory."""
    if not url.database or ":memory:" in url.database:
        reason = Phrase("a database in memory is not shared between threads")
        raise StoreError(database=name_of(url), reason=reason)
    if _is_frozen(Path(url.database)):
        file = f"file:{quote(str(Path(url.database).absolute()))}"
        url = url.set(database=file, query={"mode": "ro", "immutable": "1", "uri": "true"})
    arguments: dict[str, object] = {"check_same_thread": False}
    if "timeout" not in url.query:
        arguments["timeout"] = _BUSY_TIMEOUT_S
    # Enough for every page and export at once; a connection is a file handle or two. The one
    # that was used last is taken first: its cache is warm.
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=8,
        max_overflow=56,
        pool_use_lifo=True,
        connect_args=arguments,
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def begin_reading(connection: Connection) -> None:
    """Sees one state from now on."""
    connection.begin()


def kind_of(cause: BaseException) -> type[StoreError]:
    """The error of ours that stands for one of the driver's."""
    return _ERRORS.get(_primary_code(cause), StoreError)


def _is_frozen(path: Path) -> bool:
    # Reading needs SQLite's log beside the file. Where the folder takes none, nobody writes either.
    log = path.with_name(f"{path.name}-wal")
    return path.is_file() and not os.access(path.parent, os.W_OK) and not log.exists()


def _on_connect(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see below
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    # What is erased is overwritten in the file, not only given free.
    cursor.execute("PRAGMA secure_delete = ON")
    # Every commit reaches the disk: what was said survives a power loss, not only a kill.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def write_ahead(engine: Engine) -> None:
    """Turns the file to a log of its own (WAL), for good: who reads and who writes do not wait.

    One that cannot be written stays as it is.
    """
    connection = engine.raw_connection()
    try:
        _write_ahead(connection.cursor())
    finally:
        connection.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    # Two that turn a new file to WAL at the same moment stand in each other's way: SQLite then
    # tells one of them that it is busy without waiting.
    for tries_left in reversed(range(_WAL_TRIES)):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            code = _primary_code(error)
            if code == sqlite3.SQLITE_READONLY:
                return
            if code != sqlite3.SQLITE_BUSY or not tries_left:
                raise
            time.sleep(_WAL_PAUSE_S)


def _on_begin(connection: Connection) -> None:
    # A writer takes its lock at once: a reader that turns writer could be refused without waiting.
    writes = connection.get_execution_options().get("glm_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _primary_code(error: BaseException) -> int:
    # The low byte; the rest of an extended code says where it happened.
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
