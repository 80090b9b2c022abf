"""What is the same on every page: the look, the way to the services, and messages about errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from glm_backend.errors import GLMError
from glm_backend.services import Services
from ui.labels import error_text, t
from ui.resources import load_services
from ui.safe_markdown import plain

# A style element, because a link to a style sheet does not get through Streamlit's filter.
_STYLE = (Path(__file__).parent / "assets" / "dashboard.css").read_text(encoding="utf-8")


def draw_frame() -> None:
    """Style, and the script that does in the browser what Streamlit leaves out."""
    language, newest = st.session_state["page_language"], t("chat.to_newest")
    st.html(
        f"<style>{_STYLE}</style>"
        f'<span id="page-language" lang="{language}" data-newest="{newest}"></span>'
        '<script src="/assets/dashboard.js"></script>',
        unsafe_allow_javascript=True,
    )


def keep_address(page: str) -> None:
    """Tells the browser where it is: a link within a page does not change its address by itself,
    and the next click would come from the address before.

    page: a browser that has just turned to another one knows its address, unless there is more to
    it; told too early, it takes it for one of the page before, and Back leads there.
    """
    address = st.query_params.to_dict()
    before, said = st.session_state.get("address", (page, {}))
    if said != address and (address or before == page):
        st.query_params.from_dict(address)
    st.session_state["address"] = (page, address)


def open_page() -> Services:
    """The services, or a page that says why there are none."""
    try:
        return load_services()
    except GLMError as error:
        st.error(error_text(error))
        st.stop()


def attempt(place: str, action: Callable[..., object], *args: object) -> bool:
    """Does what a button stands for; an error is kept for `draw_refusal` on the page it was on."""
    st.session_state.pop("refusal", None)
    try:
        action(*args)
    except GLMError as error:
        st.session_state["refusal"] = (place, error)
        return False
    return True


def draw_refusal(place: str) -> None:
    """Why the last thing that was asked for here did not happen."""
    at, error = st.session_state.get("refusal", (None, None))
    if at == place and isinstance(error, GLMError):
        st.error(plain_error(error))


@contextmanager
def saying_errors() -> Iterator[None]:
    """A part of a page; what goes wrong in it is said in its place, and the rest is drawn."""
    try:
        yield
    except GLMError as error:
        st.error(plain_error(error))


def plain_error(error: GLMError) -> str:
    """The error's text for a box that reads markdown."""
    return plain(error_text(error))
