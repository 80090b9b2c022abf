"""Statements that SQLAlchemy Core has no common form for, or is slow at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

_Row = Mapping[str, object]


def upsert(connection: Connection, table: Table, row: _Row) -> None:
    """Inserts `row`, or changes the row that has its primary key."""
    keys = [column.name for column in table.primary_key]
    changes = {name: value for name, value in row.items() if name not in keys}
    statement = _insert(connection, table).values(row)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes))


def insert_new(connection: Connection, table: Table, row: _Row) -> None:
    """Inserts `row`, unless one that is equal to it in what must be unique is there already."""
    connection.execute(_insert(connection, table).values(row).on_conflict_do_nothing())


def add_to(connection: Connection, table: Table, rows: Sequence[_Row]) -> None:
    """Inserts rows of all columns, or adds their values to those that have their primary keys."""
    if not rows:
        return
    statement = _insert(connection, table)
    keys = [column.name for column in table.primary_key]
    sums = {c.name: c + statement.excluded[c.name] for c in table.columns if not c.primary_key}
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=sums), rows)


def insert_kept(connection: Connection, table: Table, rows: Sequence[_Row]) -> None:
    """Inserts rows of all columns, with values as they are kept (columns.py), unconverted.

    A third of the time of an import went into looking whether something is to be converted.
    """
    if not rows:
        return
    statement, in_order = _compiled_insert(connection.dialect, table)
    connection.exec_driver_sql(statement, list(map(in_order, rows)))


@functools.lru_cache(8)  # to compile it takes a millisecond
def _compiled_insert(dialect: Dialect, table: Table) -> tuple[str, Callable[[_Row], Any]]:
    """The statement, and what makes of a row the parameters that this database's driver takes."""
    statement = insert(table).compile(dialect=dialect)
    assert isinstance(statement, SQLCompiler)
    return str(statement), itemgetter(*statement.positiontup) if statement.positiontup else dict


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)
