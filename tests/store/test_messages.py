"""The tree of messages: turns, branches, and paths through them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_backend.errors import InvalidParameter
from glm_backend.store import Message, Store
from tests.store.talk import ANSWER, ask, finished


def test_a_turn_is_a_question_and_an_empty_answer_that_is_being_made(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id)
    question, answer = store.begin_turn(user_id, conversation.id, None, "你好", ANSWER, "me")
    assert (question.role, question.content, question.status) == ("user", "你好", "complete")
    assert (answer.role, answer.content, answer.status) == ("assistant", "", "generating")
    assert question.parent_id is None
    assert answer.parent_id == question.id
    assert (answer.model, answer.seed, answer.stop) == (ANSWER.model, ANSWER.seed, ANSWER.stop)
    assert (answer.system_prompt, answer.left_out) == (ANSWER.system_prompt, ANSWER.left_out)
    assert question.model is None
    assert store.path(user_id, conversation.id) == [question, answer]
    changed = store.conversation(user_id, conversation.id)
    assert changed.head_id == answer.id
    assert changed.updated_at > conversation.updated_at


def test_regenerating_keeps_the_older_answer_beside_the_new_one(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    question, first = ask(store, user_id, conversation.id, text="one")
    second = store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me")
    assert (second.turn, second.branch, second.seq) == (1, 2, 3)
    assert store.versions(user_id, conversation.id) == {
        None: [question.id],
        question.id: [first.id, second.id],
    }
    assert [m.id for m in store.path(user_id, conversation.id)] == [question.id, second.id]
    store.show_branch(user_id, conversation.id, first.id)
    assert [m.content for m in store.path(user_id, conversation.id)] == ["你好", "one"]


def test_an_edited_question_begins_a_branch_and_the_old_one_is_found_whole(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id)
    _, first = ask(store, user_id, conversation.id, "one")
    old, reply = ask(store, user_id, conversation.id, "two", after=first)
    _, deepest = ask(store, user_id, conversation.id, "three", after=reply)
    edited, _ = ask(store, user_id, conversation.id, "two, better", after=first)
    assert (edited.turn, edited.branch) == (old.turn, 2) == (2, 2)
    shown = [m.content for m in store.path(user_id, conversation.id)]
    assert shown == ["one", "Hello!", "two, better", "Hello!"]
    store.show_branch(user_id, conversation.id, old.id)
    assert store.path(user_id, conversation.id)[-1].id == deepest.id
    assert [m.turn for m in store.path(user_id, conversation.id)] == [1, 1, 2, 2, 3, 3]


def test_the_first_question_can_be_edited_too(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    first, _ = ask(store, user_id, conversation.id, "one")
    second, _ = ask(store, user_id, conversation.id, "uno")
    assert (second.turn, second.branch) == (1, 2)
    assert store.versions(user_id, conversation.id)[None] == [first.id, second.id]


def test_only_a_question_is_answered(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    _, answer = ask(store, user_id, conversation.id)
    with pytest.raises(InvalidParameter, match="question"):
        store.begin_answer(user_id, conversation.id, answer.id, ANSWER, "me")


def test_a_thousand_messages_come_back_in_order(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    answer = None
    for n in range(500):
        parent_id = answer.id if answer else None
        _, answer = store.begin_turn(
            user_id, conversation.id, parent_id, f"question {n}", ANSWER, "me"
        )
        store.write_answers([finished(answer, "")])
    path = store.path(user_id, conversation.id)
    assert [m.content for m in path[::2]] == [f"question {n}" for n in range(500)]
    assert [m.seq for m in path] == list(range(1, 1001))
    assert store.path(user_id, conversation.id, last=30) == path[-30:]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parents=st.lists(st.integers(min_value=-1, max_value=11), min_size=1, max_size=12))
def test_any_tree_is_walked_as_by_hand(store: Store, user_id: str, parents: list[int]) -> None:
    conversation = store.create_conversation(user_id)
    answers: list[Message] = []
    known: dict[str, Message] = {}
    for n, place in enumerate(parents):
        after = answers[place % len(answers)] if answers and place >= 0 else None
        asked, given_answer = ask(store, user_id, conversation.id, f"q{n}", f"a{n}", after=after)
        answers.append(given_answer)
        known |= {asked.id: asked, given_answer.id: given_answer}
    for message in known.values():
        by_hand = _climb(known, message)
        path = store.path(user_id, conversation.id, message.id)
        assert [m.id for m in path] == [m.id for m in by_hand]
        assert store.path(user_id, conversation.id, message.id, last=3) == path[-3:]
        store.show_branch(user_id, conversation.id, message.id)
        below = [m for m in known.values() if message in _climb(known, m)]
        newest = max(below, key=lambda m: m.seq)
        assert store.conversation(user_id, conversation.id).head_id == newest.id


def _climb(known: dict[str, Message], message: Message) -> list[Message]:
    above = _climb(known, known[message.parent_id]) if message.parent_id else []
    return [*above, message]
