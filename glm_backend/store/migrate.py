"""Brings a database to the revision of this program, in one transaction, or leaves it alone."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from glm_backend.errors import Phrase, StoreDamaged, StoreTooNew
from glm_backend.store.database import Database

_FOLDER = Path(__file__).parent / "migrations"
_alembic = threading.Lock()  # its context is one per process


def migrate(database: Database) -> None:
    """Creates the tables or changes them. Raises StoreTooNew for a revision not known here."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with database.reading() as connection:
        if _revision(connection, script, database.name) == script.get_current_head():
            return
    with _alembic, database.writing() as connection:
        _revision(connection, script, database.name)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(connection: Connection, script: ScriptDirectory, name: str) -> str | None:
    """The revision the database is at, None for an empty one."""
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is None and inspect(connection).get_table_names():
        reason = Phrase("it holds the tables of another program")
        raise StoreDamaged(database=name, reason=reason)
    if revision is not None and revision not in {r.revision for r in script.walk_revisions()}:
        raise StoreTooNew(database=name, revision=revision)
    return revision
