"""One database: connections, transactions, and the translation of whatever goes wrong in it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DataError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from glm_backend.errors import GLMError, InvalidParameter, Phrase, StoreBusy, StoreError
from glm_backend.store import postgresql, sqlite
from glm_backend.store.turns import Turns

#: Transactions at once. More would not be quicker: every thread that wants to go on waits for
#: Python's lock behind all others, a writer many times in one transaction.
_AT_ONCE = 4
_PATIENCE_S = 30.0


class Database:
    """Transactions on one database. Raises StoreError for an address nothing can be opened with.

    url: as SQLAlchemy reads it, without a password that stands in it. name: for people.
    """

    def __init__(self, url: str) -> None:
        self.name: str = Phrase("named by GLM_DATABASE_URL")
        self._kind = sqlite
        with self._translating():
            self.url = make_url(url)
            self.is_sqlite = self.url.get_backend_name() == "sqlite"
            self._kind = sqlite if self.is_sqlite else postgresql
            self.name = self._kind.name_of(self.url)
            self._engine: Engine = self._kind.open_engine(self.url)
        # SQLite takes one writer at a time, and lets others wait by polling, which is neither
        # fair nor quick: the threads of this process queue here instead.
        self._writers = Turns(1 if self.is_sqlite else _AT_ONCE)
        self._readers = Turns(_AT_ONCE)

    def take_over(self) -> None:
        """Changes how the database keeps its files; only for one that was found to be ours."""
        if self.is_sqlite:
            with self._translating():
                sqlite.write_ahead(self._engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A short transaction that sees one state of the database from beginning to end."""
        with self._turn(self._readers), self.streaming() as connection:
            yield connection

    @contextmanager
    def streaming(self) -> Iterator[Connection]:
        """The same for as long as somebody reads along, such as a download: nobody waits for it,
        and it waits for nobody."""
        with self._translating(), self._engine.connect() as connection:
            self._kind.begin_reading(connection)
            yield connection

    @contextmanager
    def writing(self, *, hurry: bool = False) -> Iterator[Connection]:
        """A transaction that may write; committed at the end, rolled back on any exception.

        hurry: before others that wait, for what must not grow old.
        """
        with (
            self._turn(self._writers, hurry=hurry),
            self._translating(),
            self._engine.connect() as connection,
        ):
            connection.execution_options(glm_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def writing_behind(self) -> Iterator[tuple[Connection, Future[None]]]:
        """The same, but nobody waits for the commit: the future says when it is done, or raises.

        The next who wants to write waits for it as always.
        """
        committed: Future[None] = Future()
        with ExitStack() as transaction:
            yield transaction.enter_context(self.writing()), committed
            commit = transaction.pop_all().close
        threading.Thread(target=_fulfil, args=(committed, commit), name="commit").start()

    @property
    def others_wait(self) -> bool:
        """True when a long writing transaction should end, for others to have their turn."""
        return not self.is_sqlite or self._writers.others_wait

    def close(self) -> None:
        """Gives every connection back; the last one folds SQLite's log into the file."""
        self._engine.dispose()

    @contextmanager
    def _turn(self, turns: Turns, *, hurry: bool = False) -> Iterator[None]:
        if not turns.acquire(_PATIENCE_S, hurry=hurry):
            raise StoreBusy(database=self.name)
        try:
            yield
        finally:
            turns.release()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, UnicodeEncodeError, OverflowError) as error:
            raise self.translated(error) from error
        except ModuleNotFoundError as error:  # the driver of another database
            raise StoreError(database=self.name, reason=str(error)) from error

    def translated(self, error: Exception) -> GLMError:
        """What a driver's or SQLAlchemy's error means."""
        cause = getattr(error, "orig", None) or error
        if isinstance(cause, GLMError):
            return cause
        if isinstance(cause, UnicodeEncodeError):
            half = repr(cause.object[cause.start : cause.end])
            allowed = Phrase("text without lone surrogates")
            return InvalidParameter(name=Phrase("text"), value=half, allowed=allowed)
        if isinstance(cause, OverflowError) or isinstance(error, DataError):
            return InvalidParameter(
                name=Phrase("number"), value=Phrase("too large"), allowed=Phrase("within 64 bits")
            )
        if isinstance(error, NoConnectionFree):
            return StoreBusy(database=self.name)
        return self._kind.kind_of(cause)(database=self.name, reason=" ".join(str(cause).split()))


def _fulfil(promise: Future[None], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:
        promise.set_exception(error)
    else:
        promise.set_result(None)
