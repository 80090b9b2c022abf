"""Brings a database to the revision of this program, in one transaction, or leaves it alone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from glm_backend.errors import Phrase, StoreDamaged, StoreTooNew
from glm_backend.store.backup import copy, file_of
from glm_backend.store.database import Database

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "migrations"
_alembic = threading.Lock()  # its context is one per process
_OUR_ADVISORY_LOCK = 0x676C6D  # "glm", any number that every process of ours knows


def migrate(database: Database, now: Callable[[], datetime]) -> None:
    """Creates the tables or changes them; a SQLite file with tables is copied beside itself first.

    Raises StoreTooNew for a revision not known here, StoreDamaged for another program's tables.
    """
    with database.reading() as connection:
        revision = revision_of(connection, database.name)
    database.take_over()
    if revision == newest_revision():
        return
    with _alembic, database.writing() as connection:
        if not database.is_sqlite:  # another process may be at it: wait until it is done
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_OUR_ADVISORY_LOCK})"))
        revision = revision_of(connection, database.name)
        if revision == newest_revision():
            return
        if revision is not None:
            _keep(database, revision, now())
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _keep(database: Database, revision: str, time: datetime) -> None:
    """Copies a SQLite file beside itself, as it is while we hold it for writing."""
    logger.info("the database goes from revision %s to %s", revision, newest_revision())
    if database.is_sqlite:
        file = file_of(database)
        kept = copy_name(file, revision, time)
        copy(file, kept)
        logger.info("as it was it is kept in %s", kept)


def newest_revision() -> str:
    """The revision that this program works with."""
    return _known_revisions()[0]


def revision_of(connection: Connection, name: str) -> str | None:
    """The revision the database is at, None for an empty one. Raises like `migrate`."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and inspect(connection).get_table_names():
        reason = Phrase("it holds the tables of another program")
        raise StoreDamaged(database=name, reason=reason)
    if revision is not None and revision not in _known_revisions():
        raise StoreTooNew(database=name, revision=revision)
    return revision


def copy_name(file: Path, what: str, time: datetime) -> Path:
    """A name beside `file` for what it was until now."""
    return file.with_name(f"{file.name}.{what}-{time:%Y%m%d-%H%M%S}")


@cache
def _known_revisions() -> list[str]:
    """The newest first."""
    scripts = ScriptDirectory.from_config(_config())
    return [script.revision for script in scripts.walk_revisions()]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config
