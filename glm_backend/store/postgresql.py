"""PostgreSQL: how it is opened, and what its errors mean."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL

from glm_backend.errors import (
    StoreAway,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
)

#: A server that has vanished without a word is noticed within some 20 seconds.
_PATIENCE = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}

#: Room for the ids that a search finds: without it a query may be answered row by row.
_WORK_MEMORY = "64MB"

#: SQLSTATEs of https://www.postgresql.org/docs/18/errcodes-appendix.html, or their classes.
_ERRORS: dict[str, type[StoreError]] = {
    "08": StoreAway,  # connection exceptions
    "25006": StoreReadOnly,
    "40": StoreLocked,  # deadlock detected, serialization failure
    "53100": StoreFull,
    "53300": StoreBusy,  # too many connections
    "55P03": StoreLocked,
    "57P": StoreAway,  # shut down, crashed, starting up
    "XX001": StoreDamaged,
    "XX002": StoreDamaged,
}


def name_of(url: URL) -> str:
    """What people know the database by; never with its password."""
    return f"{url.database or url.username} at {url.host or url.query.get('host', 'localhost')}"


def open_engine(url: URL) -> Engine:
    """Connections to one server; a connection that has died is noticed before it is used."""
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=8,
        max_overflow=24,
        connect_args=_PATIENCE,
    )


def begin_reading(connection: Connection) -> None:
    """Sees one state from now on, and may not write."""
    connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    connection.begin()
    connection.exec_driver_sql(f"SET LOCAL work_mem = '{_WORK_MEMORY}'")


def kind_of(cause: BaseException) -> type[StoreError]:
    """The error of ours that stands for one of the driver's."""
    state = getattr(cause, "sqlstate", None)
    if state is None:  # the driver has lost the server, or never found it
        lost = type(cause).__name__ in ("OperationalError", "ConnectionTimeout")
        return StoreAway if lost else StoreError
    return next((_ERRORS[state[:n]] for n in (5, 3, 2) if state[:n] in _ERRORS), StoreError)
