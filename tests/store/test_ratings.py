"""Ratings with comments."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import Connection, event

from glm_backend.errors import InvalidParameter, UnknownMessage
from glm_backend.store import ConversationFilter, Store
from tests.store.talk import ANSWER, ask, finished


def test_an_answer_is_rated_rated_otherwise_and_no_longer_rated(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    _, answer = ask(store, user_id, conversation)

    def rated() -> tuple[object, object, int, int]:
        kept = store.path(user_id, conversation)[-1]
        (used,) = store.usage(user_id)
        return kept.rating, kept.comment, used.rated_good, used.rated_bad

    store.rate(user_id, conversation, answer.id, 1)
    assert rated() == (1, None, 1, 0)
    store.rate(user_id, conversation, answer.id, -1, "太长 and wrong")
    assert rated() == (-1, "太长 and wrong", 0, 1)
    store.rate(user_id, conversation, answer.id, -1, "still wrong")
    assert rated() == (-1, "still wrong", 0, 1)
    assert store.count_conversations(user_id, ConversationFilter(rating=-1)) == 1
    assert store.count_conversations(user_id, ConversationFilter(rating=1)) == 0
    store.rate(user_id, conversation, answer.id, 1)
    assert rated() == (1, "still wrong", 1, 0)  # each stays where the other is given
    store.rate(user_id, conversation, answer.id, comment="not so wrong")
    assert rated() == (1, "not so wrong", 1, 0)
    store.rate(user_id, conversation, answer.id)
    assert rated() == (1, "not so wrong", 1, 0)
    store.rate(user_id, conversation, answer.id, None, None)
    assert rated() == (None, None, 0, 0)


@pytest.mark.parametrize("rating", [0, 2, 5, "good"])
def test_other_ratings_are_refused(store: Store, user_id: str, rating: Any) -> None:
    conversation = store.create_conversation(user_id).id
    _, answer = ask(store, user_id, conversation)
    with pytest.raises(InvalidParameter, match="rating"):
        store.rate(user_id, conversation, answer.id, rating)


def test_only_answers_of_this_conversation_are_rated(store: Store, user_id: str) -> None:
    here, there = (store.create_conversation(user_id).id for _ in range(2))
    question, _ = ask(store, user_id, here)
    _, foreign = ask(store, user_id, there)
    with pytest.raises(InvalidParameter, match="a question"):
        store.rate(user_id, here, question.id, 1)
    with pytest.raises(UnknownMessage):
        store.rate(user_id, here, foreign.id, 1)
    with pytest.raises(InvalidParameter, match="comment"):
        store.rate(user_id, here, question.id, 1, "x" * 4001)


def test_a_rating_given_while_the_answer_ends_is_counted(url: str, store: Store) -> None:
    """Another process ends it, between the look at the answer and the rating."""
    user_id = store.ensure_user("local")
    conversation = store.create_conversation(user_id).id
    _, answer = store.begin_turn(user_id, conversation, None, "q", ANSWER, "me")
    other = Store.open(url)
    end = threading.Thread(target=other.write_answers, args=([finished(answer, "a")],))

    def end_it(_: Connection, __: object, statement: str, *___: object) -> None:
        if statement.startswith("UPDATE messages SET rating"):
            end.start()
            end.join(0.5)

    event.listen(store._database._engine, "before_cursor_execute", end_it)
    store.rate(user_id, conversation, answer.id, 1)
    end.join()
    other.close()
    assert store.path(user_id, conversation)[-1].status == "complete"
    assert [used.rated_good for used in store.usage(user_id)] == [1]
