"""What was used, by day, user, model and precision."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from glm_backend.store import AnswerUpdate, Everybody, Store
from glm_backend.store.usage import Speed
from tests.store.talk import ANSWER, Clock, ask


def test_speeds_are_means_by_model_and_precision(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    _, given = ask(store, user_id, conversation)
    ask(store, user_id, conversation, after=given)
    ask(store, user_id, conversation, after=given, answer=replace(ANSWER, quantization="int8"))
    assert store.speeds(user_id) == [
        Speed("chatglm3-6b", "int4", 2, pytest.approx(45.125), pytest.approx(56.5)),
        Speed("chatglm3-6b", "int8", 1, pytest.approx(45.125), pytest.approx(56.5)),
    ]


def test_answers_without_figures_and_of_other_users_do_not_count_as_timed(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id).id
    store.begin_turn(user_id, conversation, None, "never answered", ANSWER, "me")
    other = store.ensure_user("somebody else")
    ask(store, other, store.create_conversation(other).id)
    assert store.speeds(user_id) == []


def test_messages_and_tokens_by_day_and_model(store: Store, user_id: str, clock: Clock) -> None:
    conversation = store.create_conversation(user_id).id
    ask(store, user_id, conversation)
    clock.time += timedelta(days=1)
    ask(store, user_id, conversation)
    ask(store, user_id, conversation, answer=replace(ANSWER, model="glm-4"))
    used = store.usage(user_id, "day", "model")
    assert [(u.day, u.model, u.questions, u.answers, u.completion_tokens) for u in used] == [
        ("2026-11-24", "chatglm3-6b", 1, 1, 34),
        ("2026-11-25", "chatglm3-6b", 1, 1, 34),
        ("2026-11-25", "glm-4", 1, 1, 34),
    ]
    (all_days,) = store.usage(user_id)
    assert (all_days.answers, all_days.prompt_tokens, all_days.day) == (3, 36, "")
    assert all_days.tokens_per_s == pytest.approx(45.125)
    (last,) = store.usage(user_id, "day", since=date(2026, 11, 25), until=date(2026, 11, 25))
    assert (last.day, last.answers) == ("2026-11-25", 2)
    assert store.usage(user_id, "day", since=date(2027, 1, 1)) == []
    assert store.usage(user_id, since=date(2027, 1, 1)) == []


def test_everybody_is_for_those_who_may_ask_for_it(store: Store, user_id: str) -> None:
    other = store.ensure_user("other")
    for user, count in ((user_id, 1), (other, 2)):
        for _ in range(count):
            ask(store, user, store.create_conversation(user).id)
    used = store.usage(Everybody.EVERYBODY, "user")
    assert [(u.user, u.answers) for u in used] == [("local", 1), ("other", 2)]
    assert [u.answers for u in store.usage(user_id)] == [1]
    assert store.usage("everybody") == store.usage("Everybody.EVERYBODY") == []


def test_an_answer_counts_once_however_it_ends(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    _, answer = store.begin_turn(user_id, conversation, None, "q", ANSWER, "dead")
    (begun,) = store.usage(user_id)
    assert (begun.questions, begun.answers) == (1, 0)
    store.mark_interrupted(lambda owner: False, store.now())
    assert [u.answers for u in store.usage(user_id)] == [1]
    # It was alive after all, and the database was away: its writer has the last word.
    store.write_answers([AnswerUpdate(answer.id, "more", completion_tokens=5)])
    assert [u.answers for u in store.usage(user_id)] == [0]
    ended = AnswerUpdate(answer.id, "more!", "complete", completion_tokens=7)
    for _ in range(2):  # as after a commit whose confirmation was lost
        store.write_answers([ended])
    assert [(u.answers, u.completion_tokens) for u in store.usage(user_id)] == [(1, 7)]
