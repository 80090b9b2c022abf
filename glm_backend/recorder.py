"""Writes growing answers down: all of them in one transaction, at most every 200 ms.

What cannot be written (a full disk, a locked file) stays in memory and is tried again, so an
answer that is being made is never lost to a database that is away for a while.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import psutil

from glm_backend.errors import GLMError, InternalError, StoreError
from glm_backend.live_answer import LiveAnswer
from glm_backend.store.store import Store

logger = logging.getLogger(__name__)

#: Answers are never more than 200 ms behind: this, and what the writing itself takes.
FLUSH_S = 0.12
#: A running answer is written at least this often even when nothing was added to it.
HEARTBEAT_S = 10.0
#: An answer not heard of for this long is dead, wherever its process ran.
STALE_S = 90.0
_RETRY_S = 1.0


class Recorder:
    """The one thread that writes answers to the store, and the sweep for dead ones."""

    def __init__(self, store: Store, on_saved: Callable[[LiveAnswer], None]) -> None:
        self._store = store
        self._on_saved = on_saved
        self._answers: list[LiveAnswer] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._last_heartbeat_s = 0.0
        self.owner = _own_name()
        self._thread = threading.Thread(target=self._loop, name="recorder", daemon=True)

    def start(self) -> None:
        """Marks what a dead process left behind as interrupted, then begins to write."""
        try:
            self.sweep()
        except GLMError as error:  # a read-only database can still be read
            logger.warning("interrupted answers could not be marked: %s", error)
        self._thread.start()

    def watch(self, answer: LiveAnswer) -> None:
        """From now on this answer is written as it grows, until its end is saved."""
        with self._lock:
            self._answers.append(answer)
        self._wake.set()

    def flush_soon(self) -> None:
        """An answer has ended: do not wait for the next beat."""
        self._wake.set()

    def sweep(self) -> int:
        """Marks answers whose process is dead, or silent for too long; returns how many."""
        stale_before = self._store.now() - timedelta(seconds=STALE_S)
        return self._store.mark_interrupted(_is_alive, stale_before)

    def close(self) -> None:
        """Writes what is left and ends the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join()

    def _loop(self) -> None:
        began_s = time.monotonic()
        while True:
            # From beginning to beginning, so that slow writing does not make the text older.
            since_s = time.monotonic() - began_s
            self._wake.wait(max(0.0, FLUSH_S - since_s) if self._answers else HEARTBEAT_S)
            self._wake.clear()
            began_s = time.monotonic()
            closing = self._closing
            pause = self._beat()
            if closing:
                return
            if pause:
                time.sleep(pause)

    def _beat(self) -> float:
        """One flush, and the heartbeat when it is due; returns how long to pause after it."""
        now = time.monotonic()
        due = now - self._last_heartbeat_s >= HEARTBEAT_S
        try:
            self.flush(heartbeat=due or self._closing)
            if due:
                self._last_heartbeat_s = now
                self.sweep()
        except GLMError:
            return _RETRY_S
        except Exception:  # whatever it is, the next beat must come
            logger.exception("answers could not be written")
            return _RETRY_S
        return 0.0

    def flush(self, *, heartbeat: bool = False) -> None:
        """Writes every answer that changed; with `heartbeat` the unchanged ones too."""
        with self._lock:
            answers = list(self._answers)
        changed = [a for a in answers if heartbeat or (a.dirty and not _is_refused(a))]
        try:
            self._write(changed)
        except StoreError:
            raise
        except Exception:  # it is one of them, which keeps no other from being saved
            for answer in changed:
                with suppress(Exception):
                    self._write([answer])

    def _write(self, answers: Sequence[LiveAnswer]) -> None:
        snapshots = [answer.snapshot() for answer in answers]
        try:
            self._store.write_answers([update for _, update in snapshots])
        except Exception as error:
            reason = error if isinstance(error, GLMError) else InternalError(message=repr(error))
            logger.warning("answers stay in memory for now: %s", reason)
            for answer in answers:
                answer.save_error = reason
            raise
        for answer, (version, _) in zip(answers, snapshots, strict=True):
            answer.confirm(version)
            if answer.saved:
                self._let_go(answer)

    def _let_go(self, answer: LiveAnswer) -> None:
        with self._lock:
            self._answers.remove(answer)
        self._on_saved(answer)


def _is_refused(answer: LiveAnswer) -> bool:
    """Whether the database is there and would not have it; it is tried at every heartbeat."""
    return answer.save_error is not None and not isinstance(answer.save_error, StoreError)


def _own_name() -> str:
    """Names this process so that a later one can see that it has died."""
    born = _born(psutil.Process())
    return f"{socket.gethostname()}/{os.getpid()}/{born:.2f}/{uuid.uuid4().hex[:8]}"


def _born(process: psutil.Process) -> float:
    """When it began, in seconds since the machine did: a clock that is set changes nothing."""
    return process.create_time() - psutil.boot_time()


def _is_alive(owner: str) -> bool:
    """False only when it is certain: a process of this host that is gone or another by now."""
    host, pid, born, _ = owner.split("/")
    if host != socket.gethostname():
        return True
    try:
        return abs(_born(psutil.Process(int(pid))) - float(born)) < 1
    except psutil.NoSuchProcess:
        return False
