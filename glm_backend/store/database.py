"""One database: connections, transactions, and the translation of whatever goes wrong in it.

The only file that knows which database it is; everything else says it in SQLAlchemy Core.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, QueuePool, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from glm_backend.errors import (
    GLMError,
    InvalidParameter,
    Phrase,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)

_BUSY_TIMEOUT_S = 5.0

#: Primary result codes of https://www.sqlite.org/rescode.html.
_SQLITE_ERRORS: dict[int, type[StoreError]] = {
    sqlite3.SQLITE_BUSY: StoreLocked,
    sqlite3.SQLITE_LOCKED: StoreLocked,
    sqlite3.SQLITE_READONLY: StoreReadOnly,
    sqlite3.SQLITE_CORRUPT: StoreDamaged,
    sqlite3.SQLITE_FULL: StoreFull,
    sqlite3.SQLITE_NOTADB: StoreDamaged,
}


class Database:
    """Transactions on one database. Raises StoreError for an address nothing can be opened with."""

    def __init__(self, url: str) -> None:
        self.name: str = Phrase("named by GLM_DATABASE_URL")
        with self._translating():
            address = make_url(url)
            self.name = address.database or address.render_as_string(hide_password=True)
            self._engine = _create_engine(address, self.name)
        self._timeout_s = float(str(address.query.get("timeout", _BUSY_TIMEOUT_S)))
        self._writer = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database from beginning to end."""
        with self._translating(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; committed at the end, rolled back on any exception.

        Threads of this process queue here: SQLite's own waiting for a lock is by polling, which
        is neither fair nor quick.
        """
        if not self._writer.acquire(timeout=self._timeout_s):
            raise StoreLocked(database=self.name)
        try:
            with self._translating(), self._engine.connect() as connection:
                connection.execution_options(glm_writes=True)
                with connection.begin():
                    yield connection
        finally:
            self._writer.release()

    def close(self) -> None:
        """Gives every connection back; the last one folds SQLite's log into the file."""
        self._engine.dispose()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            raise _translated(error, self.name) from error
        except ModuleNotFoundError as error:  # the driver of another database
            raise StoreError(database=self.name, reason=str(error)) from error


def upsert(connection: Connection, table: Table, row: Mapping[str, object]) -> None:
    """Inserts `row`, or changes the row that has its primary key."""
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    keys = [column.name for column in table.primary_key]
    changes = {name: value for name, value in row.items() if name not in keys}
    statement = dialect.insert(table).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))


def _create_engine(url: URL, name: str) -> Engine:
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    if not url.database or ":memory:" in url.database:
        reason = Phrase("a database in memory is not shared between threads")
        raise StoreError(database=name, reason=reason)
    if _is_frozen(Path(url.database)):
        file = f"file:{quote(str(Path(url.database).absolute()))}"
        url = url.set(database=file, query={"mode": "ro", "immutable": "1", "uri": "true"})
    arguments: dict[str, object] = {"check_same_thread": False}
    if "timeout" not in url.query:
        arguments["timeout"] = _BUSY_TIMEOUT_S
    # Enough for every page and export at once; a connection is a file handle or two.
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=8, max_overflow=56, connect_args=arguments
    )
    event.listen(engine, "connect", _on_sqlite_connect)
    event.listen(engine, "begin", _on_sqlite_begin)
    return engine


def _is_frozen(path: Path) -> bool:
    # Reading needs SQLite's log beside the file. Where the folder takes none, nobody writes either.
    log = path.with_name(f"{path.name}-wal")
    return path.is_file() and not os.access(path.parent, os.W_OK) and not log.exists()


def _on_sqlite_connect(connection: DBAPIConnection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see below
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # Every commit reaches the disk: what was said survives a power loss, not only a kill.
    cursor.execute("PRAGMA synchronous = FULL")
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
    except sqlite3.OperationalError as error:
        if _primary_code(error) != sqlite3.SQLITE_READONLY:
            raise
    finally:
        cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    # A writer takes its lock at once: a reader that turns writer could be refused without waiting.
    writes = connection.get_execution_options().get("glm_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _translated(error: Exception, database: str) -> GLMError:
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, GLMError):
        return cause
    if isinstance(cause, UnicodeEncodeError):
        half = repr(cause.object[cause.start : cause.end])
        allowed = Phrase("text without lone surrogates")
        return InvalidParameter(name=Phrase("text"), value=half, allowed=allowed)
    if isinstance(cause, OverflowError):
        return InvalidParameter(
            name=Phrase("number"), value=Phrase("too large"), allowed=Phrase("within 64 bits")
        )
    kind = _SQLITE_ERRORS.get(_primary_code(cause), StoreError)
    return kind(database=database, reason=str(cause))


def _primary_code(error: BaseException) -> int:
    # The low byte; the rest of an extended code says where it happened.
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
