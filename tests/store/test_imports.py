"""Conversations that were led elsewhere: taken whole or refused, and never twice."""

from __future__ import annotations

import uuid
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event

from glm_backend.errors import InvalidParameter, UnknownConversation
from glm_backend.store import (
    ConversationFilter,
    ImportedConversation,
    ImportedMessage,
    Store,
)
from tests.store.talk import ANSWER

_TIME = datetime(2025, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


def _id(name: str) -> str:
    return uuid.uuid5(uuid.NAMESPACE_URL, name).hex


def _message(name: str, parent: str | None, role: str, text: str, **more: Any) -> ImportedMessage:
    message: dict[str, Any] = {
        "id": _id(name),
        "parent_id": parent and _id(parent),
        "role": role,
        "content": text,
        "status": "complete",
        "created_at": _TIME,
    }
    return message | more  # type: ignore[return-value]


def _conversation(name: str = "talk", **more: Any) -> ImportedConversation:
    question = f"{name} question"
    messages = [
        _message(question, None, "user", "你好 from afar"),
        _message(f"{name} one", question, "assistant", "One", model="m", rating=-1, comment="no"),
        _message(f"{name} two", question, "assistant", "Two", stop=["。"], seed=2**63 - 1, top_p=1),
    ]
    given: dict[str, Any] = {
        "id": _id(name),
        "title": "  From \n afar ",
        "created_at": _TIME,
        "updated_at": _TIME + timedelta(seconds=1),
        "messages": messages,
        "settings": {"top_k": 3},
        "head_id": _id(f"{name} one"),
        "pinned": True,
        "archived_at": _TIME,
        "source": "elsewhere",
        "forked_from": _id("somewhere"),
        "tags": ["b", " a  c "],
    }
    return ImportedConversation(**given | more)


def test_a_conversation_comes_in_as_it_was(store: Store, user_id: str) -> None:
    given = _conversation()
    (outcome,) = store.import_conversations(user_id, [given])
    assert (outcome.state, outcome.id, outcome.messages) == ("imported", given.id, 3)
    taken = store.conversation(user_id, given.id)
    assert (taken.title, taken.tags) == ("From afar", ("a c", "b"))
    for field in fields(taken):
        if field.name not in ("title", "tags"):
            assert getattr(taken, field.name) == getattr(given, field.name)
    one = store.path(user_id, given.id)[-1]
    two = store.path(user_id, given.id, _id("talk two"))[-1]
    assert (one.content, one.model, one.rating, one.comment) == ("One", "m", -1, "no")
    assert (two.content, two.stop, two.seed, two.top_p) == ("Two", ("。",), 2**63 - 1, 1.0)
    assert [(m.seq, m.turn, m.branch, m.created_at) for m in (one, two)] == [
        (2, 1, 1, _TIME),
        (3, 1, 2, _TIME),
    ]


def test_it_is_found_and_can_be_continued(store: Store, user_id: str) -> None:
    list(store.import_conversations(user_id, [_conversation()]))
    for text in ("好", "afar", "two", "from af"):
        assert store.count_conversations(user_id, ConversationFilter(text=text)) == 1
    asked, _ = store.begin_turn(user_id, _id("talk"), _id("talk two"), "more", ANSWER, "me")
    assert (asked.seq, asked.turn, asked.branch) == (4, 2, 1)


def test_importing_twice_adds_nothing(store: Store, user_id: str) -> None:
    batch = [_conversation("a"), _conversation("b"), _conversation("a")]
    states = [outcome.state for outcome in store.preview_import(user_id, batch)]
    assert states == ["imported", "imported", "known"]
    assert store.count_conversations(user_id) == 0
    assert [o.state for o in store.import_conversations(user_id, batch)] == states
    store.delete(user_id, [_id("b")])
    for look in (store.preview_import, store.import_conversations):
        assert [o.state for o in look(user_id, batch)] == ["known", "trash", "known"]
    assert store.count_conversations(user_id) == 1
    assert store.speeds(user_id) == []


def test_an_id_that_somebody_else_has_is_neither_touched_nor_told(
    store: Store, user_id: str
) -> None:
    stranger = store.ensure_user("stranger")
    list(store.import_conversations(stranger, [_conversation(title="private")]))
    given = _conversation(title="mine")
    (outcome,) = store.import_conversations(user_id, [given])
    assert outcome.state == "imported"
    assert outcome.id not in (given.id, "")
    assert store.conversation(user_id, outcome.id).title == "mine"
    path = store.path(user_id, outcome.id)
    assert [m.content for m in path] == ["你好 from afar", "One"]
    assert path[0].id not in {m["id"] for m in given.messages}
    assert store.conversation(stranger, given.id).title == "private"
    with pytest.raises(UnknownConversation):
        store.conversation(user_id, given.id)
    (again,) = store.import_conversations(user_id, [given])
    assert (again.state, again.id) == ("known", outcome.id)


def test_message_ids_that_are_taken_are_replaced_with_their_references(
    store: Store, user_id: str
) -> None:
    first = _conversation("a")
    continued = _message("a two", "a one", "assistant", "One more", continues=_id("a one"))
    second = replace(
        _conversation("b"),
        messages=[_message("a one", None, "assistant", "One"), continued],
        head_id=_id("a two"),
    )
    outcomes = list(store.import_conversations(user_id, [first, second]))
    assert [o.state for o in outcomes] == ["imported", "imported"]
    one, more = store.path(user_id, outcomes[1].id)
    assert (more.parent_id, more.continues) == (one.id, one.id)
    assert [o.state for o in store.import_conversations(user_id, [second, first])] == ["known"] * 2


_M = _message("m", None, "user", "x")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"id": "../../etc"}, "id"),
        ({"id": _id("x").upper()}, "id"),
        ({"title": "x" * 201}, "title"),
        ({"title": "a\0b"}, "title"),
        ({"title": "\ud800"}, "title"),
        ({"title": 7}, "title"),
        ({"source": "\udfff"}, "source"),
        ({"tags": ["\ud800"]}, "tag"),
        ({"tags": ["a\0b"]}, "tag"),
        ({"tags": [7]}, "tag"),
        ({"created_at": datetime(2025, 1, 1)}, "created_at"),
        ({"archived_at": "yesterday"}, "archived_at"),
        ({"head_id": _id("nowhere")}, "head_id"),
        ({"tags": [""]}, "tag"),
        ({"settings": {"x": float("nan")}}, "settings"),
        ({"settings": {"x": "\ud800"}}, "settings"),
        ({"settings": {"x": object()}}, "settings"),
        ({"messages": [_M, _M]}, "id"),
        ({"messages": [_message("m", "later", "user", "x")]}, "parent_id"),
        ({"messages": [_message("m", "m", "user", "x")]}, "parent_id"),
        ({"messages": [_M | {"role": "system"}]}, "role"),
        ({"messages": [_M | {"status": "done"}]}, "status"),
        ({"messages": [_M | {"content": "a\0b"}]}, "content"),
        ({"messages": [_M | {"content": "\ud83d"}]}, "content"),
        ({"messages": [_M | {"content": None}]}, "content"),
        ({"messages": [_M | {"content": ["x"]}]}, "content"),
        ({"messages": [_M | {"created_at": 1741064767}]}, "created_at"),
        ({"messages": [_M | {"seed": 2**63}]}, "seed"),
        ({"messages": [_M | {"top_k": 2**31}]}, "top_k"),
        ({"messages": [_M | {"top_k": True}]}, "top_k"),
        ({"messages": [_M | {"temperature": float("inf")}]}, "temperature"),
        ({"messages": [_M | {"temperature": "warm"}]}, "temperature"),
        ({"messages": [_M | {"temperature": 10**400}]}, "temperature"),
        ({"messages": [_M | {"ttft_ms": 10**5000}]}, "ttft_ms"),
        ({"messages": [_M | {"seed": 10**5000}]}, "seed"),
        ({"messages": [_M | {"temperature": True}]}, "temperature"),
        ({"messages": [_M | {"rating": 5}]}, "rating"),
        ({"messages": [_M | {"stop": "abc"}]}, "stop"),
        ({"messages": [_M | {"comment": 7}]}, "comment"),
        ({"messages": [_M | {"continues": 7}]}, "continues"),
    ],
)
def test_what_does_not_hold_together_is_refused_by_name_and_stops_nothing(
    store: Store, user_id: str, wrong: dict[str, Any], named: str
) -> None:
    bad = _conversation("bad", **{"head_id": None} | wrong)
    before, refused, after = store.import_conversations(
        user_id, [_conversation("a"), bad, _conversation("z")]
    )
    assert (before.state, refused.state, after.state) == ("imported", "refused", "imported")
    assert isinstance(refused.error, InvalidParameter)
    assert str(refused.error).startswith(f"{named} is ")
    assert store.count_conversations(user_id) == 2


def test_an_answer_that_was_being_written_is_interrupted(store: Store, user_id: str) -> None:
    message = _message("m", None, "assistant", "so f", status="generating")
    list(store.import_conversations(user_id, [_conversation(messages=[message], head_id=None)]))
    (only,) = store.path(user_id, _id("talk"))
    assert (only.status, only.content) == ("interrupted", "so f")


def test_a_preview_tells_one_that_comes_twice_far_apart_as_it_would_be(
    store: Store, user_id: str
) -> None:
    long = [_message(str(n), None, "user", "x") for n in range(5000)]  # more than a portion
    given = [_conversation(), _conversation("long", messages=long, head_id=None), _conversation()]
    preview = list(store.preview_import(user_id, given))
    assert [outcome.state for outcome in preview] == ["imported", "imported", "known"]
    assert preview == list(store.import_conversations(user_id, given))


@pytest.mark.parametrize(
    "wrong", [{"model": "".join(map(chr, range(0x4E00, 0x4E00 + 9000)))}, {"tokens_per_s": 1.7e308}]
)
def test_what_no_index_and_no_sum_could_hold_costs_its_conversation_only(
    store: Store, user_id: str, wrong: dict[str, Any]
) -> None:
    answers = [_message(f"m{n}", None, "assistant", "x", **wrong) for n in range(2)]
    bad = _conversation("bad", messages=answers, head_id=None)
    states = [o.state for o in store.import_conversations(user_id, [_conversation(), bad])]
    assert states == ["imported", "refused"]


def test_many_conversations_are_taken_in_one_call(store: Store, user_id: str) -> None:
    batch = [_conversation(str(n)) for n in range(700)]
    assert {o.state for o in store.import_conversations(user_id, batch)} == {"imported"}
    assert store.count_conversations(user_id, ConversationFilter(text="two")) == 700


def test_an_outcome_is_given_when_it_is_on_the_disk(store: Store, user_id: str) -> None:
    def fail(connection: Connection) -> None:
        if connection.get_execution_options().get("glm_writes"):
            raise OSError("the disk is gone")

    event.listen(store._database._engine, "commit", fail)
    outcomes = []
    with pytest.raises(OSError, match="the disk is gone"):
        outcomes += store.import_conversations(user_id, [_conversation()])
    event.remove(store._database._engine, "commit", fail)
    assert outcomes == []
    assert store.count_conversations(user_id) == 0
    assert [o.state for o in store.import_conversations(user_id, [_conversation()])] == ["imported"]
