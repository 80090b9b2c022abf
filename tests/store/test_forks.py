"""Forks: a conversation begun anew from a place in another one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glm_backend.errors import AnswerComplete, AnswerRunning, UnknownConversation, UnknownMessage
from glm_backend.store import AnswerUpdate, ConversationFilter, Store
from tests.store.talk import ANSWER, ask


def test_a_fork_has_the_way_to_its_place_and_nothing_else_changes(
    store: Store, user_id: str
) -> None:
    origin = store.create_conversation(user_id, title="Origin", settings={"top_k": 3})
    _, one = ask(store, user_id, origin.id, "one", "first answer")
    two, reply = ask(store, user_id, origin.id, "two", "second answer", after=one)
    store.rate(user_id, origin.id, reply.id, 1, "good")
    ask(store, user_id, origin.id, "three", after=reply)
    before = store.conversation(user_id, origin.id), store.path(user_id, origin.id)
    fork = store.fork_conversation(user_id, origin.id, reply.id)
    assert (store.conversation(user_id, origin.id), store.path(user_id, origin.id)) == before
    assert store.conversation(user_id, fork.id) == fork
    assert (fork.title, fork.settings, fork.forked_from) == ("Origin", {"top_k": 3}, reply.id)
    copies, way = store.path(user_id, fork.id), before[1][:4]
    assert [m.seq for m in copies] == [1, 2, 3, 4]
    assert {m.id for m in copies}.isdisjoint(m.id for m in way)
    for copy, message in zip(copies, way, strict=True):
        place = {name: getattr(copy, name) for name in ("id", "conversation_id", "parent_id")}
        assert copy == replace(message, **place, rating=None, comment=None)
    ask(store, user_id, fork.id, "otherwise", after=copies[-1])
    assert store.path(user_id, origin.id) == before[1]
    assert store.fork_conversation(user_id, origin.id, two.id).head_id is not None


def test_a_fork_is_found_and_does_not_count_as_use(store: Store, user_id: str) -> None:
    origin = store.create_conversation(user_id)
    _, answer = ask(store, user_id, origin.id, "only here", "天气")
    speeds = store.speeds(user_id)
    store.fork_conversation(user_id, origin.id, answer.id)
    assert store.count_conversations(user_id, ConversationFilter(text="天气")) == 2
    assert store.speeds(user_id) == speeds


def test_taking_back_a_rating_in_a_fork_takes_nothing_from_the_sums(
    store: Store, user_id: str
) -> None:
    origin = store.create_conversation(user_id)
    _, answer = ask(store, user_id, origin.id)
    store.rate(user_id, origin.id, answer.id, 1)
    fork = store.fork_conversation(user_id, origin.id, answer.id)
    copy = store.path(user_id, fork.id)[-1]
    for rating, good in ((None, 1), (1, 2), (None, 1)):
        store.rate(user_id, fork.id, copy.id, rating)
        assert [used.rated_good for used in store.usage(user_id)] == [good]


def test_a_branch_that_is_not_shown_can_be_forked_too(store: Store, user_id: str) -> None:
    origin = store.create_conversation(user_id)
    _, hidden = ask(store, user_id, origin.id, "old words", "old answer")
    ask(store, user_id, origin.id, "new words", "new answer")
    fork = store.fork_conversation(user_id, origin.id, hidden.id)
    assert [m.content for m in store.path(user_id, fork.id)] == ["old words", "old answer"]
    assert [m.branch for m in store.path(user_id, fork.id)] == [1, 1]


def test_nothing_is_forked_while_it_is_written_or_by_others(store: Store, user_id: str) -> None:
    origin = store.create_conversation(user_id)
    _, done = ask(store, user_id, origin.id)
    _, running = store.begin_turn(user_id, origin.id, done.id, "more", ANSWER, "me")
    with pytest.raises(AnswerRunning):
        store.fork_conversation(user_id, origin.id, running.id)
    with pytest.raises(UnknownMessage):
        store.fork_conversation(user_id, origin.id, "nothing")
    with pytest.raises(UnknownConversation):
        store.fork_conversation(store.ensure_user("stranger"), origin.id, done.id)
    assert store.count_conversations(user_id) == 1


def test_an_answer_is_carried_on_beside_the_one_that_was_cut_off(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id)
    question, cut = store.begin_turn(user_id, conversation.id, None, "q", ANSWER, "me")
    store.write_answers([AnswerUpdate(cut.id, "half an ans\N{REPLACEMENT CHARACTER}", "stopped")])
    more = store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me", continues=cut.id)
    assert (more.content, more.continues, more.branch) == ("half an ans", cut.id, 2)
    store.write_answers([AnswerUpdate(more.id, "half an answer", "complete", finish_reason="stop")])
    for message_id in (more.id, question.id):
        with pytest.raises((AnswerComplete, UnknownMessage)):
            store.begin_answer(
                user_id, conversation.id, question.id, ANSWER, "me", continues=message_id
            )
    other, _ = store.begin_turn(user_id, conversation.id, None, "other", ANSWER, "me")
    with pytest.raises(UnknownMessage):
        store.begin_answer(user_id, conversation.id, other.id, ANSWER, "me", continues=cut.id)
