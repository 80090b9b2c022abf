"""How text is cut for searching, and what of it is highlighted."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm_backend.store.tokens import (
    excerpt,
    has_phrases,
    highlights,
    normalised,
    query_tokens,
    shows,
    tokens,
)

TEXT = st.text(st.sampled_from("aB9é _+-.\"'\\%*天气你好かな한😀\n"), max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", set()),
        (" \n\t", set()),
        ("Hello world", {"hello", "world"}),
        ("C++ 数据库", {"c+", "++", "+", "数据", "据库", "库"}),
        ("a_b 100%", {"a_", "_b", "b", "100%", "%"}),
        ("ＡＢＣ，é", {"abc,", ",é", "é"}),  # wide letters, and a letter with its accent apart
        ("Straße", {"strasse"}),
        ("x" * 50, {"x" * 50, "x" * 10}),
        ("😀😁", {"😀😁", "😁"}),
    ],
)
def test_a_token_is_a_unit_with_the_one_that_touches_it(text: str, expected: set[str]) -> None:
    assert tokens(text) == expected


@pytest.mark.parametrize(
    ("query", "whole", "beginnings"),
    [
        ("天", [], ["天"]),
        ("天气", [], ["天气"]),
        ("天气好", ["天气"], ["气好"]),
        ("Hel wor", [], ["hel", "wor"]),
        ("C++", ["c+"], ["++"]),
        ("  ", [], []),
        ('"', [], []),
        ("“C++ 数据” w", ["c+"], ["w", "++", "数据"]),
    ],
)
def test_a_query_asks_for_tokens_and_beginnings(
    query: str, whole: list[str], beginnings: list[str]
) -> None:
    assert query_tokens(query) == (whole, beginnings)


def holds(text: str, query: str) -> bool:
    """What the search promises, said plainly: every part of the query, from the beginning of a
    unit on, somewhere in the text, and every phrase as it is."""
    whole, beginnings = query_tokens(query)
    there = tokens(text)
    found = all(t in there for t in whole) and all(
        any(t.startswith(b) for t in there) for b in beginnings
    )
    return found and (shows(text, query) or not has_phrases(query))


@given(before=TEXT, found=TEXT, after=TEXT)
@example(before="ab", found="", after="")
def test_every_part_of_a_text_that_stands_apart_is_found(
    before: str, found: str, after: str
) -> None:
    text = f"{before} {found} {after}"
    assert holds(text, found)
    assert holds(text, found[: len(found) // 2 + 1])
    assert holds(text, normalised(found).upper())


@given(text=TEXT, query=TEXT)
def test_what_is_highlighted_is_what_was_asked_for(text: str, query: str) -> None:
    parts = set(re.split(r"[\s\"]+", normalised(query))) - {""}
    end = 0
    for start, stop in highlights(text, query):
        assert end <= start < stop <= len(text)
        shown = normalised(text[start:stop])
        assert any(part in shown for part in parts)
        end = stop


def test_highlights_begin_where_words_do() -> None:
    assert highlights("Weather: the weathering of ether", "ether WEATH") == [
        (0, 5),
        (13, 18),
        (27, 32),
    ]
    assert highlights("今天天气好", "天") == [(1, 2), (2, 3)]
    assert highlights("ﬁne ＣＡＦÉ", "fine café") == [(0, 3), (4, 8)]
    assert highlights("anything", " ") == []


@pytest.mark.parametrize(
    ("query", "marked"),
    [
        ('"do I  bake"', ["do I\nbake"]),
        ('"do I bak"', []),
        ('"do I bak', ["do", "I", "bak", "I", "do", "I", "bak"]),
        ("“I bake bread”", ["I bake bread"]),
        ('"BREAD" do', ["do", "do", "bread"]),
        ("「烤面」", ["烤面"]),
        ("「面烤」", []),
        ('bread"', ["bread"]),
        ('""', []),
    ],
)
def test_what_is_between_quotation_marks_is_one_phrase(query: str, marked: list[str]) -> None:
    text = "How do I\nbake? I do: I bake bread, 烤面包"
    assert [text[a:b] for a, b in highlights(text, query)] == marked
    assert shows(text, query) == (bool(marked) or query == '""')


def test_an_excerpt_shows_the_place_that_was_found() -> None:
    text = f"{'word ' * 100}here\nit is {'more ' * 100}"
    shown = excerpt(text, "here", 160)
    assert shown.startswith("…")
    assert "here it is" in shown
    assert len(shown) <= 161
    assert excerpt("short text", "short", 160) == "short text"
    assert excerpt("nothing of it", "else", 160) == "nothing of it"
