"""Empties the trash of what has been in it for long, in a thread of its own.

One conversation after the other: erasing a large one takes a while, and nobody's answer waits.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from glm_backend.errors import GLMError
from glm_backend.store.store import Store

logger = logging.getLogger(__name__)

#: Between two looks at the trash, and between two conversations that are erased.
_LOOK_S, _REST_S = 60.0, 0.1


class Eraser:
    """trash_days: what has been in the trash for so many days is erased; 0 keeps it."""

    def __init__(self, store: Store, trash_days: int) -> None:
        self._store, self._trash_days = store, trash_days
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="eraser", daemon=True)
        if trash_days:
            self._thread.start()

    def close(self) -> None:
        """Ends the thread behind the conversation that it is at."""
        self._closing.set()
        if self._trash_days:
            self._thread.join()

    def _loop(self) -> None:
        while not self._closing.wait(_REST_S if self._erased_one() else _LOOK_S):
            pass

    def _erased_one(self) -> bool:
        before = self._store.now() - timedelta(days=self._trash_days)
        try:
            return self._store.erase_deleted_before(before, at_most=1) > 0
        except GLMError as error:
            logger.warning("the trash could not be emptied: %s", error)
            return False
