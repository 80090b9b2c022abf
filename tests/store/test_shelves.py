"""Pins, archive, tags, the trash, and what is erased from it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from glm_backend.errors import InvalidParameter, UnknownConversation
from glm_backend.store import (
    ConversationFilter,
    ImportedConversation,
    ImportedMessage,
    Store,
)
from tests.store.talk import Clock, ask


@pytest.fixture
def three(store: Store, user_id: str) -> list[str]:
    return [store.create_conversation(user_id, title=title).id for title in ("one", "two", "three")]


def _listed(store: Store, user_id: str, **filter: object) -> list[str]:
    found = ConversationFilter(**filter)  # type: ignore[arg-type]
    return [row.title for row in store.list_conversations(user_id, limit=9, filter=found)]


def test_pinned_conversations_stand_first(store: Store, user_id: str, three: list[str]) -> None:
    assert store.pin(user_id, [three[0], three[0], "unknown"]) == [three[0]]
    assert store.pin(user_id, [three[0]]) == []
    assert _listed(store, user_id) == ["one", "three", "two"]
    assert _listed(store, user_id, pinned=True) == ["one"]
    assert _listed(store, user_id, pinned=False) == ["three", "two"]
    assert store.conversation(user_id, three[0]).pinned
    assert store.unpin(user_id, three) == [three[0]]
    assert _listed(store, user_id) == ["three", "two", "one"]


def test_archived_conversations_leave_the_everyday_list_only(
    store: Store, user_id: str, three: list[str]
) -> None:
    assert store.archive(user_id, three[1:]) == sorted(three[1:])
    assert store.archive(user_id, three) == [three[0]]
    assert store.unarchive(user_id, [three[0]]) == [three[0]]
    assert _listed(store, user_id, archived=False) == ["one"]
    assert _listed(store, user_id, archived=True) == ["three", "two"]
    assert _listed(store, user_id, text="two") == ["two"]
    assert store.conversation(user_id, three[1]).archived_at is not None


def test_tags_are_given_found_and_taken_off(store: Store, user_id: str, three: list[str]) -> None:
    assert store.tag(user_id, three[:2], "  季度 报告 ") == sorted(three[:2])
    assert store.tag(user_id, three, "季度 报告") == [three[2]]
    store.tag(user_id, three[:1], "ideas")
    assert store.tags_used(user_id) == ["ideas", "季度 报告"]
    assert store.conversation(user_id, three[0]).tags == ("ideas", "季度 报告")
    assert _listed(store, user_id, tag="ideas") == ["one"]
    assert store.untag(user_id, three, "ideas") == [three[0]]
    assert store.tags_used(user_id) == ["季度 报告"]
    (row,) = store.list_conversations(user_id, limit=1)
    assert row.tags == ("季度 报告",)
    for wrong in ("", " ", "x" * 51):
        with pytest.raises(InvalidParameter, match="tag"):
            store.tag(user_id, three, wrong)


def test_the_trash_hides_everything_and_gives_it_back(store: Store, user_id: str) -> None:
    kept = store.create_conversation(user_id)
    gone = store.create_conversation(user_id)
    ask(store, user_id, gone.id)
    store.tag(user_id, [gone.id], "t")
    before = store.conversation(user_id, gone.id), store.path(user_id, gone.id)
    assert store.delete(user_id, [gone.id, gone.id, "unknown"]) == [gone.id]
    assert store.delete(user_id, [gone.id]) == []
    with pytest.raises(UnknownConversation):
        store.conversation(user_id, gone.id)
    assert [row.id for row in store.list_conversations(user_id, limit=10)] == [kept.id]
    assert store.tags_used(user_id) == []
    in_trash = ConversationFilter(trash=True)
    (row,) = store.list_conversations(user_id, limit=10, filter=in_trash)
    assert (row.id, row.deleted_at is not None) == (gone.id, True)
    stranger = store.ensure_user("stranger")
    asked = [(user_id, gone.id), (user_id, kept.id), (user_id, "unknown"), (stranger, gone.id)]
    assert [store.is_trashed(*each) for each in asked] == [True, False, False, False]
    assert store.restore(user_id, [gone.id, kept.id]) == [gone.id]
    assert (store.conversation(user_id, gone.id), store.path(user_id, gone.id)) == before


def test_thousands_are_put_away_at_once(store: Store, user_id: str) -> None:
    ids = sorted(store.create_conversation(user_id).id for _ in range(30))
    assert store.delete(user_id, [*ids, *(f"{n:032x}" for n in range(40_000))]) == ids


def test_only_what_is_in_the_trash_is_erased_and_nothing_of_it_is_left(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id, title="titleword")
    ask(store, user_id, conversation.id, "questionword", "answerword")
    other = store.create_conversation(user_id)
    ask(store, user_id, other.id, "questionword", "stays")
    assert store.erase(user_id, [conversation.id]) == []
    store.delete(user_id, [conversation.id])
    assert store.erase(store.ensure_user("stranger"), [conversation.id]) == []
    assert store.erase(user_id, [conversation.id, other.id]) == [conversation.id]
    assert store.restore(user_id, [conversation.id]) == []
    for trash in (True, False):
        for text, left in (("titleword", 0), ("answerword", 0), ("questionword", not trash)):
            found = ConversationFilter(text=text, trash=trash)
            assert store.count_conversations(user_id, found) == left
    assert [used.answers for used in store.usage(user_id)] == [2]


def test_a_conversation_of_thousands_of_messages_is_erased(store: Store, user_id: str) -> None:
    ids = [f"{n:032x}" for n in range(3000)]
    now = store.now()
    chain = [
        ImportedMessage(
            id=each, parent_id=above, role="user", content="q", status="complete", created_at=now
        )
        for each, above in zip(ids, [None, *ids], strict=False)
    ]
    (taken,) = store.import_conversations(
        user_id, [ImportedConversation("c" * 32, "long", now, now, chain)]
    )
    assert len(store.path(user_id, taken.id)) == 3000
    store.delete(user_id, [taken.id])
    assert store.erase(user_id, [taken.id]) == [taken.id]


def test_what_was_deleted_long_ago_is_erased_some_at_a_time(
    store: Store, user_id: str, clock: Clock
) -> None:
    stranger = store.ensure_user("stranger")
    old = [store.create_conversation(user).id for user in (user_id, stranger, user_id)]
    for user in (user_id, stranger):
        store.delete(user, old)
    clock.time += timedelta(days=30)
    new = store.create_conversation(user_id).id
    store.delete(user_id, [new])
    month_ago = clock.time - timedelta(days=29)
    erased = [store.erase_deleted_before(month_ago, at_most=2) for _ in range(3)]
    assert erased == [2, 1, 0]
    assert store.restore(user_id, [*old, new]) == [new]


def test_nobody_puts_away_what_is_not_theirs(store: Store, user_id: str, three: list[str]) -> None:
    stranger = store.ensure_user("stranger")
    store.tag(user_id, three, "mine")
    for act in (store.pin, store.archive, store.delete, store.restore, store.erase):
        assert act(stranger, three) == []
    assert store.tag(stranger, three, "theirs") == []
    assert store.untag(stranger, three, "mine") == []
    assert _listed(store, user_id, tag="mine", pinned=False, archived=False) == [
        "three",
        "two",
        "one",
    ]
    assert store.tags_used(stranger) == []


def test_of_some_ids_those_are_found_that_a_filter_finds(store: Store, user_id: str) -> None:
    a, b, gone = (store.create_conversation(user_id).id for _ in range(3))
    store.tag(user_id, [a, gone], "t")
    store.delete(user_id, [gone])
    ids = [gone, b, a, "unknown"]
    assert set(store.found_among(user_id, ids, ConversationFilter())) == {a, b}
    assert store.found_among(user_id, ids, ConversationFilter(tag="t")) == [a]
    assert store.found_among(user_id, ids, ConversationFilter(trash=True)) == [gone]
    assert store.found_among(store.ensure_user("stranger"), ids, ConversationFilter()) == []
