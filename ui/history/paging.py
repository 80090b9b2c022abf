"""Turning the pages of what is too long for one, above it and below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import streamlit as st


@contextmanager
def paged(
    pages: int, key: str, *, first: int = 1, kept: Literal["session"] | None = None
) -> Iterator[int]:
    """The number of the page that is turned to, with the buttons before and after what is drawn.

    first: the page that is shown before another is turned to. kept: the number stays when
    another page of the program is looked at.
    """
    if pages == 1:
        yield 1
        return
    with st.container(key=f"pages_above_{key}"):
        number = st.pagination(pages, default=first, key=key, persist_state=kept)
    yield number
    below = f"{key}_below"

    def turn() -> None:
        st.session_state[key] = st.session_state[below]

    st.session_state[below] = number
    with st.container(key=f"pages_below_{key}"):
        st.pagination(pages, key=below, on_change=turn)
