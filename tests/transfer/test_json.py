"""The JSON export: everything, exactly, and as the schema says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from glm_backend.errors import UnknownConversation
from glm_backend.store import AnswerUpdate, Store
from glm_backend.transfer import Selection, export
from glm_backend.transfer.records import CSV_COLUMNS, MESSAGE_FIELDS
from tests.store.talk import ANSWER, ask
from tests.transfer.test_csv import TEXT

_SCHEMA = Path(__file__).parents[2] / "docs" / "export.schema.json"


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    definition = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(definition)
    return Draft202012Validator(definition)


def _read(chunks: Iterator[bytes]) -> Any:
    return json.loads(b"".join(chunks).decode("utf-8"))


def test_a_store_without_conversations_gives_a_whole_document(
    store: Store, user_id: str, schema: Draft202012Validator
) -> None:
    document = _read(export(store, user_id, "json"))
    schema.validate(document)
    assert document == {
        "format": "glm-chat",
        "version": 1,
        "exported_at": "2026-11-24T01:50:02.123456Z",
        "conversations": [],
    }


def test_whole_conversations_with_everything_known_of_them(
    store: Store, user_id: str, schema: Draft202012Validator
) -> None:
    empty = store.create_conversation(user_id, title="=empty")
    conversation = store.create_conversation(user_id, settings={"temperature": 0.5, "提示": [1]})
    question, answer = ask(store, user_id, conversation.id, "=你好\r\n", "Hello!")
    running = store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me")
    store.write_answers([AnswerUpdate(running.id, "so f")])
    document = _read(export(store, user_id, "json"))
    schema.validate(document)
    first, second = document["conversations"]
    assert first == {
        "id": empty.id,
        "title": "=empty",
        "user": "local",
        "created_at": "2026-11-24T01:50:02.123456Z",
        "updated_at": "2026-11-24T01:50:02.123456Z",
        "tags": [],
        "settings": {},
        "head_id": None,
        "pinned": False,
        "archived_at": None,
        "source": None,
        "forked_from": None,
        "messages": [],
    }
    assert second["settings"] == {"temperature": 0.5, "提示": [1]}
    assert second["head_id"] == running.id
    asked, given_answer, growing = second["messages"]
    assert asked["content"] == "=你好\r\n"
    assert (asked["message_id"], asked["parent_id"]) == (question.id, None)
    assert (given_answer["message_id"], given_answer["parent_id"]) == (answer.id, question.id)
    assert given_answer["stop"] == ["\n\nUser:", "。"]
    assert given_answer["seed"] == 2**63 - 1
    assert (given_answer["left_out"], given_answer["tokens_per_s"]) == (2, 45.125)
    assert (growing["status"], growing["content"], growing["branch"]) == ("generating", "so f", 2)


def test_a_message_has_every_column_of_the_csv_in_the_same_order() -> None:
    assert MESSAGE_FIELDS[: len(CSV_COLUMNS) - 3] == CSV_COLUMNS[3:]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.tuples(TEXT, TEXT), stop=st.lists(TEXT, max_size=3))
def test_any_text_comes_back_exactly(
    store: Store,
    user_id: str,
    schema: Draft202012Validator,
    texts: tuple[str, str],
    stop: list[str],
) -> None:
    conversation = store.create_conversation(user_id, settings={texts[0]: stop})
    ask(store, user_id, conversation.id, *texts)
    document = _read(export(store, user_id, "json", Selection([conversation.id])))
    schema.validate(document)
    (only,) = document["conversations"]
    assert only["settings"] == {texts[0]: stop}
    assert tuple(m["content"] for m in only["messages"]) == texts


def test_chinese_stays_readable(store: Store, user_id: str) -> None:
    ask(store, user_id, store.create_conversation(user_id).id, "你好，世界 😀")
    assert "你好，世界 😀" in b"".join(export(store, user_id, "json")).decode()


def test_nobody_exports_what_is_not_theirs(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    stranger = store.ensure_user("stranger")
    assert _read(export(store, stranger, "json"))["conversations"] == []
    with pytest.raises(UnknownConversation):
        export(store, stranger, "json", Selection([conversation.id]))
