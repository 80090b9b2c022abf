"""Every text of the pages in both languages, by key; `t("chat.stop")` gives the reader's."""

from __future__ import annotations

import streamlit as st

from glm_backend.errors import GLMError
from ui.labels import en, zh

TEXTS = {"en": en.TEXTS, "zh": zh.TEXTS}


def t(key: str, /, **fields: object) -> str:
    """The text of this key in the reader's language."""
    return TEXTS[_language()][key].format(**fields)


def error_text(error: GLMError) -> str:
    """What an error says, in the reader's language."""
    template = zh.ERRORS.get(error.code) if _language() == "zh" else None
    return template.format(**error.details) if template else str(error)


def _language() -> str:
    return str(st.session_state.get("page_language", "en"))
