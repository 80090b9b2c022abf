"""Reading conversations in bulk, and all of it there and back, on both databases."""

from __future__ import annotations

import io
import json
import random

import pytest

from glm_backend.errors import UnknownConversation
from glm_backend.store import AnswerUpdate, ConversationFilter, Store
from glm_backend.store.values import Everybody
from glm_backend.transfer import EXPORT_FORMS, Selection, export, import_file
from tests.store.talk import ANSWER, ask
from tests.transfer.generated import conversations


def _streamed(
    store: Store, user_id: str | Everybody, ids: list[str], *, shown_only: bool = False
) -> dict[str, list[str]]:
    """The texts of each conversation, by its title, in the order of the stream."""
    streamed = store.stream(user_id, ids, ["content"], shown_only=shown_only)
    return {
        conversation["title"]: [text for rows in portions for (text,) in rows]
        for conversation, portions in streamed
    }


@pytest.fixture
def branched(store: Store, user_id: str) -> str:
    conversation = store.create_conversation(user_id, title="branched").id
    question, _ = ask(store, user_id, conversation, "q", "first")
    again = store.begin_answer(user_id, conversation, question.id, ANSWER, "me")
    store.write_answers([AnswerUpdate(again.id, "second", "complete")])
    return conversation


def test_every_branch_or_the_shown_one(store: Store, user_id: str, branched: str) -> None:
    assert _streamed(store, user_id, [branched]) == {"branched": ["q", "first", "second"]}
    shown = _streamed(store, user_id, [branched], shown_only=True)
    assert shown == {"branched": ["q", "second"]}


def test_conversations_come_as_they_were_asked_for(store: Store, user_id: str) -> None:
    made = [store.create_conversation(user_id, title=f"{n}").id for n in range(450)]
    for n in (0, 200, 449):
        ask(store, user_id, made[n], f"q{n}")
    streamed = _streamed(store, user_id, made[::-1])
    assert list(streamed) == [f"{n}" for n in reversed(range(450))]
    assert [said[0] for said in streamed.values() if said] == ["q449", "q200", "q0"]
    assert store.select_conversations(user_id) == made


def test_what_is_said_of_a_conversation(store: Store, user_id: str, branched: str) -> None:
    ((conversation, portions),) = store.stream(user_id, [branched], ["message_id", "seed", "stop"])
    assert conversation["user"] == "local"
    assert conversation["pinned"] is False
    assert conversation["tags"] == ()
    assert conversation["created_at"] == "2026-11-24T01:50:02.123456Z"
    assert [tuple(row[1:]) for rows in portions for row in rows] == [
        (None, None),
        (2**63 - 1, '["\\n\\nUser:", "。"]'),
        (2**63 - 1, '["\\n\\nUser:", "。"]'),
    ]


def test_only_ones_own_unless_one_may_read_everybodys(
    store: Store, user_id: str, branched: str
) -> None:
    other = store.ensure_user("other")
    assert _streamed(store, other, [branched]) == {}
    with pytest.raises(UnknownConversation):
        store.select_conversations(other, [branched])
    assert store.select_conversations(other) == []
    everybody = Everybody.EVERYBODY
    assert "branched" in _streamed(store, everybody, [branched])
    mine = ConversationFilter(user="local")
    assert store.select_conversations(everybody, filter=mine) == [branched]


def test_what_is_in_the_trash_is_only_found_there(
    store: Store, user_id: str, branched: str
) -> None:
    kept = store.create_conversation(user_id, title="kept").id
    store.delete(user_id, [branched])
    trash = ConversationFilter(trash=True)
    assert store.select_conversations(user_id) == [kept]
    assert store.select_conversations(user_id, filter=trash) == [branched]
    assert store.select_conversations(user_id, [branched], trash) == [branched]
    for ids, filter in (([branched], ConversationFilter()), ([kept], trash)):
        with pytest.raises(UnknownConversation):
            store.select_conversations(user_id, ids, filter)
    assert "first" in b"".join(export(store, user_id, "csv", Selection(filter=trash))).decode()


def test_what_was_erased_meanwhile_is_left_out(store: Store, user_id: str, branched: str) -> None:
    assert _streamed(store, user_id, ["0" * 32, branched]).keys() == {"branched"}


@pytest.mark.parametrize("form", sorted(EXPORT_FORMS))
def test_every_form_is_written_from_both_databases(
    store: Store, user_id: str, branched: str, form: str
) -> None:
    assert len(b"".join(export(store, user_id, form))) > 100
    assert len(b"".join(export(store, user_id, form, Selection(shown_only=True)))) > 100


def test_everything_comes_back_into_an_empty_database(store: Store, user_id: str) -> None:
    """What one user has, exported and taken by another, who gets other ids and the same rest."""
    lines = [
        json.dumps({"format": "glm-chat", **one}) for one in conversations(random.Random(8), 200)
    ]
    document = io.BytesIO("\n".join(lines).encode())
    assert import_file(store, user_id, document).counts["imported"] == 200
    mine = b"".join(export(store, user_id, "jsonl"))
    assert import_file(store, user_id, io.BytesIO(mine)).counts["known"] == 200
    assert b"".join(export(store, user_id, "jsonl")) == mine
    other = store.ensure_user("other")
    assert import_file(store, other, io.BytesIO(mine)).counts["imported"] == 200
    assert b"".join(export(store, user_id, "jsonl")) == mine
    theirs = b"".join(export(store, other, "openai", Selection(shown_only=False)))
    said = b"".join(export(store, user_id, "openai", Selection(shown_only=False)))
    assert sorted(theirs.splitlines()) == sorted(said.splitlines())
