"""The dashboard on a model whose every word is the time at which it was made.

benchmarks/pages.py reads in the browser when each of them arrived. 30 words a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from glm_backend.completion import CompletionEvent, Text  # noqa: E402
from glm_backend.engine.request import SamplingParams  # noqa: E402
from glm_backend.models.model import Message  # noqa: E402
from glm_backend.settings import Settings  # noqa: E402
from glm_backend.testing import FakeCompletion, FakeModel  # noqa: E402
from tests.fakes import fake_services  # noqa: E402
from ui import application, resources  # noqa: E402


class Clock(FakeModel):
    """Says the time, in milliseconds, until it is stopped."""

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> Ticking:
        return Ticking(self, [""] * 1000, params, 1)


class Ticking(FakeCompletion):
    """A fake answer in which each word is replaced by the time of its making."""

    def events(self) -> Iterator[CompletionEvent]:
        for event in super().events():
            if isinstance(event, Text):
                yield Text(f"{time.time_ns() // 1_000_000} ", event.tokens)
            else:
                yield event


resources.open_services = lambda: fake_services(
    Settings.load().data_dir, Clock(pause_s=1 / 30, context_length=10**7)
)

app = st.App(
    application.ROUTER,
    lifespan=application.lifespan,
    routes=application.ROUTES,
    middleware=application.MIDDLEWARE,
)
