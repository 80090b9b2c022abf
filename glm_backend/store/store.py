"""Every part of the store over one database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from glm_backend.store.answers import Answers
from glm_backend.store.conversations import Conversations
from glm_backend.store.database import Database
from glm_backend.store.forks import Forks
from glm_backend.store.imports import Imports
from glm_backend.store.messages import Messages
from glm_backend.store.migrate import migrate
from glm_backend.store.preferences import Preferences
from glm_backend.store.ratings import Ratings
from glm_backend.store.search import Search
from glm_backend.store.shelves import Shelves
from glm_backend.store.stream import Stream
from glm_backend.store.usage import Usage


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Store(
    Conversations,
    Messages,
    Answers,
    Forks,
    Ratings,
    Shelves,
    Search,
    Usage,
    Imports,
    Stream,
    Preferences,
):
    """Every part of the store over one database. Any number of threads may call it at once.

    Any call may raise StoreError or one of its kinds; what was asked has then not happened.
    """

    @classmethod
    def open(cls, url: str, *, now: Callable[[], datetime] = _utc_now) -> Store:
        """Opens the database at this SQLAlchemy URL, creates or migrates it at need.

        `now` gives aware datetimes. Raises StoreTooNew, StoreReadOnly (only where something would
        have to be written), StoreLocked, StoreDamaged, StoreFull, StoreError.
        """
        database = Database(url)
        try:
            migrate(database, now)
        except BaseException:
            database.close()
            raise
        return cls(database, now)

    def close(self) -> None:
        """Gives the database back. The store is not to be used afterwards."""
        self._database.close()
