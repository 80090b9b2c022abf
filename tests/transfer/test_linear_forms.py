"""Markdown and the two forms for fine-tuning: turns one after another."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from glm_backend.store import AnswerUpdate, Store
from glm_backend.transfer import Selection, export
from tests.store.talk import ANSWER, ask
from tests.transfer.test_csv import TEXT

_COMMONMARK = MarkdownIt("commonmark")


def _exported(store: Store, user_id: str, form: str, **chosen: Any) -> str:
    return b"".join(export(store, user_id, form, Selection(**chosen))).decode()


def _openai(store: Store, user_id: str, **chosen: Any) -> list[str]:
    """Each record as its texts, a letter for the role in front."""
    lines = _exported(store, user_id, "openai", **chosen).splitlines()
    records = [json.loads(line)["messages"] for line in lines]
    return [" ".join(f"{m['role'][0]}:{m['content']}" for m in record) for record in records]


@pytest.fixture
def branched(store: Store, user_id: str) -> str:
    """A conversation with two answers to its first question, and a question after the second."""
    conversation = store.create_conversation(user_id, title="tree").id
    question, _ = ask(store, user_id, conversation, "q", "first")
    again = store.begin_answer(user_id, conversation, question.id, ANSWER, "me")
    store.write_answers([AnswerUpdate(again.id, "second", "complete")])
    ask(store, user_id, conversation, "q2", "third", after=again)
    return conversation


def test_the_shown_branch_is_one_record(store: Store, user_id: str, branched: str) -> None:
    assert _openai(store, user_id) == ["s:You are kind. u:q a:second u:q2 a:third"]
    records = json.loads(_exported(store, user_id, "sharegpt"))
    assert records == [
        {
            "id": f"{branched}_0",
            "conversations": [
                {"from": "system", "value": "You are kind."},
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": "second"},
                {"from": "human", "value": "q2"},
                {"from": "gpt", "value": "third"},
            ],
        }
    ]


def test_every_path_is_a_record_on_request(store: Store, user_id: str, branched: str) -> None:
    assert _openai(store, user_id, shown_only=False) == [
        "s:You are kind. u:q a:first",
        "s:You are kind. u:q a:second u:q2 a:third",
    ]
    records = json.loads(_exported(store, user_id, "sharegpt", shown_only=False))
    assert [record["id"] for record in records] == [f"{branched}_0", f"{branched}_1"]


def test_an_answer_without_text_is_left_out_with_its_question(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    _, failed = store.begin_turn(user_id, conversation, None, "q", ANSWER, "me")
    store.write_answers([AnswerUpdate(failed.id, "", "failed", error="x")])
    ask(store, user_id, conversation, "q2", "a2", after=failed)
    assert _openai(store, user_id) == ["s:You are kind. u:q2 a:a2"]


def test_a_conversation_without_answers_gives_no_record(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    store.begin_turn(user_id, conversation, None, "q", ANSWER, "me")
    store.create_conversation(user_id)
    assert _exported(store, user_id, "openai") == ""
    assert json.loads(_exported(store, user_id, "sharegpt")) == []


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_the_other_forms_hold_every_branch_or_the_shown_one(
    store: Store, user_id: str, branched: str, form: str
) -> None:
    assert "first" in _exported(store, user_id, form)
    shown = _exported(store, user_id, form, shown_only=True)
    assert "first" not in shown
    assert all(text in shown for text in ("second", "q2", "third"))


def test_markdown_for_reading(store: Store, user_id: str, branched: str) -> None:
    conversation = store.conversation(user_id, branched)
    began = conversation.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text = _exported(store, user_id, "markdown")
    assert text.startswith(f"# tree\n\nlocal, {began}\n\n## 1: User, ")
    assert "\n\n> second\n\n## 2: User, " in text
    assert "## 1, version 2: chatglm3\\-6b, " in text
    assert "first" not in text
    assert text.endswith("> third\n")
    assert "first" in _exported(store, user_id, "markdown", shown_only=False)


def test_markdown_says_what_went_wrong_outside_of_the_answer(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    _, failed = store.begin_turn(user_id, conversation, None, "q", ANSWER, "me")
    store.write_answers([AnswerUpdate(failed.id, "so far", "failed", error="*out* of memory")])
    text = _exported(store, user_id, "markdown")
    assert text.endswith("> so far\n\n*failed: \\*out\\* of memory*\n")


@pytest.mark.parametrize(
    "text",
    [
        "<img src=https://evil.example/x>",
        "![](https://evil.example/x)",
        "![a][b]\n\n[b]: https://evil.example/x",
        "![a][b]",
        "a <!-- x",
        "1. ```\n   x\n   ```\n<b>bold</b>",
        "`a\n` <img src=x> `b",
        "````\n```\n<b>",
        "```\ncode\n```\n\n<details>",
    ],
)
def test_markdown_shows_as_it_was_written_what_a_viewer_would_fetch_or_run(
    store: Store, user_id: str, text: str
) -> None:
    conversation = store.create_conversation(user_id).id
    ask(store, user_id, conversation, "q", text)
    ask(store, user_id, conversation, "q", "[b]: https://evil.example/x")
    shown = _exported(store, user_id, "markdown", shown_only=False)
    assert not _active(shown)
    fences = [token.content for token in _COMMONMARK.parse(shown) if token.type == "fence"]
    assert any(text.strip() in fence for fence in fences) or text.startswith("````")


def _active(text: str) -> list[str]:
    tokens = _COMMONMARK.parse(text)
    flat = [inner for token in tokens for inner in (token, *(token.children or ()))]
    return [token.type for token in flat if token.type in ("image", "html_block", "html_inline")]


@pytest.mark.parametrize(
    "text", ["use `<div>` or `![x](y)`", "```html\n<b>\n```", "a < b", "    <b>"]
)
def test_markdown_leaves_code_as_it_is(store: Store, user_id: str, text: str) -> None:
    ask(store, user_id, store.create_conversation(user_id).id, "q", text)
    assert "\n> ".join(["", *text.split("\n")]) in _exported(store, user_id, "markdown")


@settings(max_examples=80, deadline=None, suppress_health_check=[*HealthCheck])
@given(text=TEXT | st.text("<>![]()`~#>-=\n a1:\\&*_\t", max_size=60))
def test_no_text_leaves_its_place_in_markdown_or_becomes_active(
    store: Store, user_id: str, text: str
) -> None:
    conversation = store.create_conversation(user_id, title="t").id
    ask(store, user_id, conversation, text, text)
    shown = _exported(store, user_id, "markdown", conversation_ids=[conversation])
    assert not _active(shown)
    outside = [token for token in _COMMONMARK.parse(shown) if token.level == 0]
    headings = [token.markup for token in outside if token.type == "heading_open"]
    assert headings == ["#", "##", "##"]
