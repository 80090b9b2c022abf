"""An answer while it is being written, held in memory for everyone who watches it.

One thread appends, any number of pages tail, and the recorder writes it down. It knows neither
models nor databases.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from glm_backend.engine.request import FinishReason, Usage
from glm_backend.errors import GLMError
from glm_backend.readable import storable
from glm_backend.store.values import AnswerUpdate, Status

_STATUS: dict[FinishReason, Status] = {
    "stop": "complete",
    "length": "complete",
    "cancelled": "stopped",
}


class Maker(Protocol):
    """What makes an answer: a request of a model that waits in line before it is answered."""

    @property
    def place(self) -> int: ...

    def cancel(self) -> None: ...


class LiveAnswer:
    """The text so far of one answer, how it ended, and whether it is saved.

    finish_reason: as a model gives it, "unloaded" where the model was let go in the middle, "error"
    for an answer that failed; None until then.
    """

    def __init__(
        self, message_id: str, conversation_id: str, *, max_new_tokens: int, begun_with: str = ""
    ) -> None:
        self.message_id = message_id
        self.conversation_id = conversation_id
        self.max_new_tokens = max_new_tokens
        self.tokens = 0
        self.status: Status = "generating"
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.error: GLMError | None = None
        self.save_error: GLMError | None = None
        self._pieces = [begun_with] if begun_with else []
        self._version = 0
        self._saved_version = 0
        self._changed = threading.Condition()
        self._maker: Maker | None = None
        self._cancelled = False

    @property
    def text(self) -> str:
        """All characters so far."""
        return "".join(self._pieces)

    @property
    def running(self) -> bool:
        """True until the answer has ended."""
        return self.status == "generating"

    @property
    def saved(self) -> bool:
        """True when the database holds the end of this answer."""
        return not self.running and self._saved_version == self._version

    @property
    def place(self) -> int:
        """Its place in line, 1 is next; 0 where the model is at it or it has ended."""
        return self._maker.place if self._maker is not None and self.running else 0

    # --- who writes

    def made_by(self, maker: Maker) -> None:
        """Says who makes it, who is cancelled at once if Stop came before."""
        with self._changed:
            self._maker = maker
            cancelled = self._cancelled
        if cancelled:
            maker.cancel()

    def append(self, text: str, tokens: int) -> None:
        """More text, made storable: a model may write anything."""
        with self._changed:
            self._pieces.append(storable(text))
            self.tokens = tokens
            self._bump()

    def finish(self, reason: FinishReason, usage: Usage) -> None:
        with self._changed:
            self.usage, self.status = usage, _STATUS[reason]
            # A model that is let go ends its answers as cancelled, too.
            let_go = reason == "cancelled" and not self._cancelled
            self.finish_reason = "unloaded" if let_go else reason
            self._bump()

    def fail(self, error: GLMError, usage: Usage | None = None) -> None:
        with self._changed:
            self.usage, self.error, self.finish_reason = usage, error, "error"
            self.status = "failed"
            self._bump()

    # --- who watches

    def cancel(self) -> None:
        """Asks the model to stop."""
        with self._changed:
            self._cancelled = True
            maker = self._maker
        if maker is not None:
            maker.cancel()

    def tail(self, max_hz: float = 10, poll: Callable[[], object] = bool) -> Iterator[str]:
        """New text as it comes, at most `max_hz` pieces a second, until the answer ends.

        `poll` is called at least every 50 ms, so that a page can be interrupted while no token
        comes. Any number of readers may tail at once, each from the beginning; they look at the
        same moments, so that they have the same text to draw.
        """
        seen = 0
        while True:
            with self._changed:
                if seen == len(self._pieces) and self.running:
                    self._changed.wait(0.05)
                running, new = self.running, "".join(self._pieces[seen:])
                seen = len(self._pieces)
            if new:
                yield new
            if not running:
                return
            poll()
            if new:
                time.sleep(1 / max_hz - time.monotonic() % (1 / max_hz))

    def wait_saved(self, timeout_s: float) -> bool:
        """Waits until the end of the answer is in the database."""
        with self._changed:
            return self._changed.wait_for(lambda: self.saved, timeout_s)

    # --- who records

    @property
    def dirty(self) -> bool:
        """True when something is not in the database yet."""
        return self._saved_version != self._version

    def snapshot(self) -> tuple[int, AnswerUpdate]:
        """The state to write, and the version to confirm it with."""
        with self._changed:
            return self._version, self._update()

    def confirm(self, version: int) -> None:
        """The database holds this version."""
        with self._changed:
            self._saved_version, self.save_error = version, None
            self._changed.notify_all()

    def _update(self) -> AnswerUpdate:
        usage = self.usage
        return AnswerUpdate(
            message_id=self.message_id,
            content=self.text,
            status=self.status,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            ttft_ms=_milliseconds(usage.ttft_s) if usage else None,
            duration_ms=_milliseconds(usage.duration_s) if usage else None,
            tokens_per_s=_rounded(usage.tokens_per_s) if usage else None,
            finish_reason=self.finish_reason,
            error=storable(str(self.error)) if self.error else None,
        )

    def _bump(self) -> None:
        self._version += 1
        self._changed.notify_all()


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
