"""Which of the two languages a page speaks: the user's choice, else the browser's."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from glm_backend.errors import GLMError
from ui.resources import load_services

Language = Literal["en", "zh"]

#: What the setting may be, with the name that each language gives itself.
LANGUAGES: dict[Language, str] = {"en": "English", "zh": "中文"}


def choose_language() -> Language:
    """The language of this run of the page."""
    try:
        services = load_services()
        chosen = services.store.user_settings(services.user_id).get("language")
    except GLMError:  # the page itself will say what is wrong with the database
        chosen = st.session_state.get("page_language")
    return "zh" if chosen == "zh" else "en" if chosen == "en" else browser_language()


def browser_language() -> Language:
    """The nearest to what the browser asks for."""
    return "zh" if (st.context.locale or "").lower().startswith("zh") else "en"
