"""Both languages say the same things, about the same values."""

from __future__ import annotations

import ast
import re
import string
from pathlib import Path

import pytest

from glm_backend import errors
from glm_backend.errors import CheckpointDamaged, GLMError, Phrase
from ui.labels import en, error_text, said, t, zh
from ui.labels.retold import retold
from ui.labels.zh_errors import ERRORS
from ui.labels.zh_phrases import PHRASES

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


def test_english_says_one_as_one() -> None:
    assert t("export.about", count=1) == "1 conversation."
    assert t("export.about", count=2) == "2 conversations."
    for key, text in en.ONE.items():
        assert _fields(text) == _fields(en.TEXTS[key]) - {"count"}, key


@pytest.mark.parametrize("kind", _kinds(errors.GLMError), ids=lambda kind: kind.__name__)
def test_every_error_is_said_in_chinese_with_the_same_values(kind: type[GLMError]) -> None:
    assert _fields(ERRORS[kind.__name__]) == _fields(kind.template)


def _phrases() -> set[str]:
    """The templates of every Phrase that is made."""
    templates = set()
    for path in [*(ROOT / "glm_backend").rglob("*.py"), *_SOURCES]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Phrase":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"
                templates.add(node.args[0].value)
    return templates


def test_every_phrase_inside_an_error_is_said_in_chinese_with_the_same_values() -> None:
    assert _phrases() == PHRASES.keys()
    for english, chinese in PHRASES.items():
        assert _fields(english) == _fields(chinese), english


def test_a_page_in_chinese_says_the_whole_error_in_chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    lack = Phrase("lack {names}", names=Phrase("{name} and {count} more", name="a.weight", count=2))
    reason = Phrase(
        "the weights do not belong to this {config}: they {they}", config="config.json", they=lack
    )
    error = CheckpointDamaged(file="model.safetensors", reason=reason)
    monkeypatch.setattr("ui.labels._language", lambda: "zh")
    text = error_text(error)
    assert "权重与此 config.json 不符：缺少 a.weight 及另外 2 个" in text
    assert not re.search(r"\b(weights|lack|more)\b", text.replace("a.weight", ""))
    assert said(Phrase("{where} says so", where=Phrase("the folder's name"))) == "依据 文件夹名称"
    assert said("not a phrase") == "not a phrase"


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


class _Whatever:
    """A value with a text of its own, whatever its place-holder asks for."""

    def __init__(self, name: str) -> None:
        self._text = f"/a {name}/"

    def __format__(self, spec: str) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text


_KEPT = [(kind.template, ERRORS[kind.__name__]) for kind in _kinds(errors.GLMError)]


@pytest.mark.parametrize(("english", "chinese"), [*_KEPT, *PHRASES.items()])
def test_what_was_kept_in_english_is_told_in_chinese(english: str, chinese: str) -> None:
    values = {name: _Whatever(name) for name in _fields(english)}
    assert retold(english.format(**values)) == chinese.format(**values)


def test_a_phrase_inside_an_error_is_told_too_and_what_is_not_known_stays() -> None:
    damaged = CheckpointDamaged(
        file="a {b}.json", reason=Phrase("num_hidden_layers is {layers!r}", layers="many")
    )
    expected = "a {b}.json：num_hidden_layers 的值为 'many'。请删除该文件并重新获取。"
    assert retold(str(damaged)) == expected
    for text in ("", ": is " * 199, "a" * 5000, "what another server said", "答案", "a {b} c"):
        assert retold(text) == text
