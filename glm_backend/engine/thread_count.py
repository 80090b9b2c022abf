"""How many threads the kernels get: tried while the engine runs, since it depends on the company.

All cores are best on an idle machine. Beside a busy neighbour (the web server, another program) a
thread that has lost its core makes all the others wait for it, and fewer are faster.
"""

from __future__ import annotations

from statistics import median

#: Steps between two trials, and how many steps a trial takes.
_BETWEEN, _TRIAL = 200, 5
#: The other count is taken when it is faster by so much.
_LEAST_GAIN = 1.08


class ThreadCount:
    """Says how many threads the next step gets, and learns from how long it took."""

    def __init__(self, most: int) -> None:
        self._counts = sorted({most, max(1, most - 1)}, reverse=True)
        self._chosen = 0  # place in the list
        self._steps = 0
        self._usual: list[float] = []
        self._tried: list[float] = []

    @property
    def current(self) -> int:
        """For the next step."""
        return self._counts[(self._chosen + self._trying) % len(self._counts)]

    @property
    def _trying(self) -> bool:
        return len(self._counts) > 1 and self._steps >= _BETWEEN

    def learn(self, seconds: float) -> None:
        """A step that held answers only took so long."""
        if not self._trying:
            self._usual = [*self._usual, seconds][-_TRIAL:]
            self._steps += 1
            return
        self._tried.append(seconds)
        if len(self._tried) > _TRIAL:
            # The first step of a trial also wakes or sends to sleep.
            if median(self._tried[1:]) * _LEAST_GAIN < median(self._usual):
                self._chosen = (self._chosen + 1) % len(self._counts)
            self._steps, self._tried, self._usual = 0, [], []

    def changed(self) -> None:
        """The steps are others from now on: what was measured says nothing about them."""
        self._tried, self._usual = [], []
        self._steps = min(self._steps, _BETWEEN - _TRIAL)
