"""Turns of the threads of one process, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """So many at once. Fair: with a plain lock, a thread that does much can keep others out.

    Who is in a hurry goes to the head of the line.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    @property
    def others_wait(self) -> bool:
        """True when somebody waits for whoever has a turn now."""
        return bool(self._waiting)

    def acquire(self, timeout_s: float, *, hurry: bool = False) -> bool:
        """Waits for one's turn; False when it has not come in time."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Event()
            (self._waiting.appendleft if hurry else self._waiting.append)(turn)
        if turn.wait(timeout_s):
            return True
        with self._lock:
            if turn.is_set():  # it came at the last moment
                return True
            self._waiting.remove(turn)
        return False

    def release(self) -> None:
        """Gives the turn to who has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1
