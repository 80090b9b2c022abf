"""Both languages say the same things, about the same values."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

from glm_backend import errors
from glm_backend.errors import GLMError
from ui.labels import en, zh

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = [*(ROOT / "ui").rglob("*.py"), *(ROOT / "pages").glob("*.py")]


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def _kinds(base: type[GLMError]) -> list[type[GLMError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in _kinds(child))]


def test_every_text_exists_in_both_languages_with_the_same_fields() -> None:
    assert en.TEXTS.keys() == zh.TEXTS.keys()
    for key, text in en.TEXTS.items():
        assert _fields(text) == _fields(zh.TEXTS[key]), key


@pytest.mark.parametrize("kind", _kinds(errors.GLMError), ids=lambda kind: kind.__name__)
def test_every_error_is_said_in_chinese_with_the_same_values(kind: type[GLMError]) -> None:
    assert _fields(zh.ERRORS[kind.__name__]) == _fields(kind.template)


def test_every_text_that_is_asked_for_exists_and_none_is_left_over() -> None:
    asked = "\n".join(path.read_text(encoding="utf-8") for path in _SOURCES)
    literal = set(re.findall(r'"([a-z]+\.[a-z_0-9]+)"', asked)) - {"dashboard.css"}
    made = {f"{prefix}." for prefix in re.findall(r't\(\s*f"([a-z]+)\.', asked)}
    for key in en.TEXTS:
        assert key in literal or any(key.startswith(prefix) for prefix in made), key
    prefixes = {key.partition(".")[0] for key in en.TEXTS}
    for key in literal:
        if key.partition(".")[0] in prefixes:
            assert key in en.TEXTS, key
