"""A copy put in the place of a SQLite database, once it is known to be whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from pathlib import Path

from glm_backend.errors import Phrase, StoreDamaged, StoreLocked
from glm_backend.store.backup import Progress, copy, file_of, read_only, told_of
from glm_backend.store.database import Database
from glm_backend.store.migrate import copy_name, revision_of
from glm_backend.store.sqlite import kind_of

_LOCK_TIMEOUT_S = 1.0


def restore(
    url: str,
    backup: Path,
    now: Callable[[], datetime],
    on_progress: Progress = lambda done: None,
) -> Path | None:
    """Makes the backup the database at `url`; returns where the replaced one is kept, if any.

    The backup itself stays as it is. An older revision is migrated when it is opened. Raises
    StoreDamaged and StoreTooNew for what is no backup of ours or not whole, StoreLocked while
    another program has the database open, OtherBackup for PostgreSQL; nothing was changed then.
    """
    database = Database(url)
    database.close()
    file = file_of(database)
    new = file.with_name(f".{file.name}.restored")
    try:
        copy(backup, new, on_progress)
        _check(new, shown=backup)
        kept = copy_name(file, "replaced", now()) if file.exists() else None
        _put_in_place(new, file, kept)
    finally:
        new.unlink(missing_ok=True)
    return kept


def _check(file: Path, shown: Path) -> None:
    """Raises StoreDamaged or StoreTooNew, naming `shown`, which `file` is a copy of."""
    with told_of(shown), closing(sqlite3.connect(read_only(file), uri=True)) as connection:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise StoreDamaged(database=str(shown), reason=found)
    database = Database(f"sqlite:///{read_only(file)}&uri=true")
    try:
        with database.reading() as connection:
            if revision_of(connection, str(shown)) is None:
                raise StoreDamaged(database=str(shown), reason=Phrase("it has no tables"))
    finally:
        database.close()


def _put_in_place(new: Path, file: Path, kept: Path | None) -> None:
    """Makes `new` the database at `file`; what was there is at `kept` afterwards.

    Raises StoreLocked when another program has the database open.
    """
    if kept is not None:
        _keep(file, kept)
    new.replace(file)


def _keep(file: Path, kept: Path) -> None:
    """Gives the database a second name, and leaves nothing beside the first one.

    What stands in its log comes into the file first, for which nobody else may have it open; of a
    file that is too damaged for that, the log is kept as well.
    """
    log, kept_log = (path.with_name(f"{path.name}-wal") for path in (file, kept))
    if log.exists():
        os.link(log, kept_log)  # SQLite deletes a log that it cannot make sense of
    try:
        with closing(sqlite3.connect(file, timeout=_LOCK_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
        kept_log.unlink(missing_ok=True)
    except sqlite3.Error as error:
        if kind_of(error) is StoreLocked:
            kept_log.unlink(missing_ok=True)
            raise StoreLocked(database=str(file)) from error
    os.link(file, kept)
    for end in ("-wal", "-shm"):
        file.with_name(file.name + end).unlink(missing_ok=True)
