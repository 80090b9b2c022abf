"""How a database is: looked at without changing it, whatever state it is in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, select

from glm_backend.store.backup import file_of
from glm_backend.store.database import Database
from glm_backend.store.migrate import newest_revision, revision_of
from glm_backend.store.schema import conversations, messages

_PROBLEMS_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Health:
    """revision: None where there is no database yet. size_bytes: of the file, or on the server.

    problems: what the database's own checks found, the first few.
    """

    database: str
    revision: str | None
    newest_revision: str
    size_bytes: int = 0
    conversations: int = 0
    messages: int = 0
    problems: tuple[str, ...] = ()


def examine(url: str) -> Health:
    """Checks the whole database; of a SQLite file every page is read, which takes a while.

    Raises StoreError and its kinds for one that cannot be read at all.
    """
    database = Database(url)
    try:
        if database.is_sqlite and not file_of(database).is_file():
            return Health(database.name, None, newest_revision())
        with database.reading() as connection:
            return _examined(connection, database)
    finally:
        database.close()


def _examined(connection: Connection, database: Database) -> Health:
    revision = revision_of(connection, database.name)
    problems = tuple(_problems(connection)) if database.is_sqlite else ()
    readable = revision is not None and not problems
    return Health(
        database.name,
        revision,
        newest_revision(),
        size_bytes=_size_bytes(connection),
        conversations=_count(connection, conversations) if readable else 0,
        messages=_count(connection, messages) if readable else 0,
        problems=problems[:_PROBLEMS_SHOWN],
    )


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _problems(connection: Connection) -> Iterator[str]:
    for (found,) in connection.exec_driver_sql(f"PRAGMA integrity_check({_PROBLEMS_SHOWN})"):
        if found != "ok":
            yield str(found)
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} belongs to a row of {parent} that is not there"


def _size_bytes(connection: Connection) -> int:
    if connection.dialect.name != "sqlite":
        return int(
            connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar() or 0
        )
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
    return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar() or 0)
