"""How far a long work is, on one line of stderr; nothing where nobody watches a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TextIO

_WIDTH = 30
_CLEAR_LINE = "\r\x1b[K"


class ProgressLine:
    """A line that is written anew at each report and gone when the work is done."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._shown = ""

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write("")

    def report(self, stage: str, fraction: float) -> None:
        """Shows the stage and the fraction of it that is done, 0 to 1."""
        done = round(_WIDTH * min(max(fraction, 0.0), 1.0))
        self._write(f"{stage:<12} [{'#' * done}{' ' * (_WIDTH - done)}] {fraction:4.0%}")

    def _write(self, line: str) -> None:
        if line == self._shown or not self._out.isatty():
            return
        self._shown = line
        self._out.write(_CLEAR_LINE + line)
        self._out.flush()
