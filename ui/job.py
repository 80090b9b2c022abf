"""Work that takes longer than a page may: in a thread of its own, whoever watches."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import streamlit as st

from glm_backend.errors import Cancelled, GLMError, InternalError

logger = logging.getLogger(__name__)

#: What is over so soon is not worth a progress bar.
PATIENCE_S = 0.7
_LOOK_S = 0.5

T = TypeVar("T")
#: Is told how much is done, from 0 to 1.
Progress = Callable[[float], None]


class Job(Generic[T]):
    """Begins at once. `result` and `error` say how it ended; of the two one is set then.

    name: what is said to have been stopped, where it was.
    """

    def __init__(self, do: Callable[[Progress], T], name: str = "") -> None:
        self.name = name
        self.fraction = 0.0
        self._stopped = False
        self.result: T | None = None
        self.error: GLMError | None = None
        self._ended = threading.Event()
        threading.Thread(target=self._run, args=(do,), name="job", daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def stop(self) -> None:
        """Ends it the next time that it tells how far it is; its error is Cancelled then."""
        self._stopped = True

    def wait(self, timeout_s: float) -> bool:
        """True when it has ended."""
        return self._ended.wait(timeout_s)

    def _run(self, do: Callable[[Progress], T]) -> None:
        try:
            self.result = do(self._report)
        except GLMError as error:
            self.error = error
        except Exception as error:
            logger.exception("a job failed")
            self.error = InternalError(message=type(error).__name__)
        finally:
            self._ended.set()

    def _report(self, fraction: float) -> None:
        self.fraction = min(1.0, fraction)
        if self._stopped and fraction < 1:
            raise Cancelled(what=self.name)


def has_ended(job: Job[T], text: str) -> bool:
    """True when it has; else its progress stands here, and the page is drawn anew at its end."""
    if job.wait(PATIENCE_S):
        return True

    @st.fragment(run_every=_LOOK_S)
    def look() -> None:
        if job.ended:
            st.rerun()
        st.progress(job.fraction, text=text)

    look()
    return False
