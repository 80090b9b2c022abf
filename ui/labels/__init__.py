"""Every text of the pages in both languages, by key; `t("chat.stop")` gives the reader's."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from glm_backend.errors import GLMError, Phrase
from ui.labels import en, zh
from ui.labels.retold import retold
from ui.labels.zh_errors import ERRORS
from ui.labels.zh_phrases import PHRASES

TEXTS = {"en": en.TEXTS, "zh": zh.TEXTS}
#: The texts for one where they differ.
_ONE: dict[str, Mapping[str, str]] = {"en": en.ONE, "zh": {}}


def t(key: str, /, **fields: object) -> str:
    """The text of this key in the reader's language."""
    text = TEXTS[_language()][key]
    if fields.get("count") == 1:
        text = _ONE[_language()].get(key, text)
    return text.format(**fields)


def t_or(key: str, text: str) -> str:
    """The text of this key, or `text` where there is none: what is imported has any name."""
    return t(key) if key in TEXTS["en"] else text


def error_text(error: GLMError) -> str:
    """What an error says, in the reader's language."""
    template = ERRORS.get(error.code) if _language() == "zh" else None
    return template.format(**_chinese_values(error.details)) if template else str(error)


def kept_error(text: str) -> str:
    """What an error said that was kept as English text, in the reader's language."""
    return retold(text) if _language() == "zh" else text


def said(text: str) -> str:
    """A Phrase of the backend in the reader's language; other texts stay as they are."""
    return str(_in_chinese(text)) if _language() == "zh" else text


def _in_chinese(value: object) -> object:
    """What is no Phrase came from outside (a file's name, a library's words) and stays."""
    if not isinstance(value, Phrase):
        return value
    template = PHRASES.get(value.template, value.template)
    return template.format(**_chinese_values(value.values))


def _chinese_values(values: Mapping[str, object]) -> dict[str, object]:
    return {name: _in_chinese(value) for name, value in values.items()}


def _language() -> str:
    return str(st.session_state.get("page_language", "en"))
