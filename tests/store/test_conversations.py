"""Conversations as wholes, and who may touch them."""

from collections.abc import Callable

import pytest

from glm_backend.errors import EmptyTitle, InvalidParameter, UnknownConversation, UnknownMessage
from glm_backend.store import Store
from tests.store.talk import ANSWER, ask


def test_a_user_is_created_once(store: Store) -> None:
    assert store.ensure_user("local") == store.ensure_user("local")
    assert store.ensure_user("li") != store.ensure_user("local")


def test_a_new_conversation_is_empty_and_found_again(store: Store, user_id: str) -> None:
    made = store.create_conversation(user_id, settings={"temperature": 0.2, "system_prompt": "好"})
    assert store.conversation(user_id, made.id) == made
    assert made.settings == {"temperature": 0.2, "system_prompt": "好"}
    assert store.path(user_id, made.id) == []
    assert store.versions(user_id, made.id) == {}


def test_ids_cannot_be_guessed_from_one_another(store: Store, user_id: str) -> None:
    ids = {store.create_conversation(user_id).id for _ in range(50)}
    assert len(ids) == 50
    assert all(len(i) == 32 and int(i, 16) for i in ids)


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("  What is  attention?\nIn one line.", "What is attention?"),
        ("\n\n你好，世界", "你好，世界"),
        ("word " * 40, "word " * 11 + "word…"),
    ],
)
def test_the_first_question_gives_the_title(
    store: Store, user_id: str, question: str, title: str
) -> None:
    conversation = store.create_conversation(user_id)
    _, answer = ask(store, user_id, conversation.id, question)
    ask(store, user_id, conversation.id, "another question", after=answer)
    assert store.conversation(user_id, conversation.id).title == title
    assert len(title) <= 60


def test_a_title_that_was_given_stays(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id, title="Notes")
    ask(store, user_id, conversation.id)
    assert store.conversation(user_id, conversation.id).title == "Notes"


def test_rename_tidies_white_space_and_refuses_nothing_and_too_much(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id)
    store.rename(user_id, conversation.id, "  a \n new\tname ")
    assert store.conversation(user_id, conversation.id).title == "a new name"
    for title in ("", " \n "):
        with pytest.raises(EmptyTitle, match="Give a title of 1 to 200 characters"):
            store.rename(user_id, conversation.id, title)
    with pytest.raises(InvalidParameter):
        store.rename(user_id, conversation.id, "x" * 201)
    assert store.conversation(user_id, conversation.id).title == "a new name"


def test_settings_of_a_conversation_are_replaced(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id, settings={"top_k": 3})
    store.set_conversation_settings(user_id, conversation.id, {"temperature": 0})
    assert store.conversation(user_id, conversation.id).settings == {"temperature": 0}


_DOORS: list[Callable[[Store, str, str, str], object]] = [
    lambda store, user, conversation, _: store.conversation(user, conversation),
    lambda store, user, conversation, _: store.path(user, conversation),
    lambda store, user, conversation, message: store.path(user, conversation, message),
    lambda store, user, conversation, _: store.versions(user, conversation),
    lambda store, user, conversation, _: store.rename(user, conversation, "mine now"),
    lambda store, user, conversation, _: store.set_conversation_settings(user, conversation, {}),
    lambda store, user, conversation, message: store.show_branch(user, conversation, message),
    lambda store, user, conversation, _: store.begin_turn(
        user, conversation, None, "hm", ANSWER, "x"
    ),
    lambda store, user, conversation, message: store.begin_answer(
        user, conversation, message, ANSWER, "x"
    ),
    lambda store, user, conversation, message: store.fork_conversation(user, conversation, message),
    lambda store, user, conversation, message: store.rate(user, conversation, message, 1),
    lambda store, user, conversation, _: store.select_conversations(user, [conversation]),
]


@pytest.mark.parametrize("door", _DOORS)
def test_every_door_is_closed_to_others_and_after_deletion(
    store: Store, user_id: str, door: Callable[[Store, str, str, str], object]
) -> None:
    conversation = store.create_conversation(user_id, title="private")
    question, _ = ask(store, user_id, conversation.id)
    before = store.conversation(user_id, conversation.id), store.path(user_id, conversation.id)
    stranger = store.ensure_user("stranger")
    with pytest.raises(UnknownConversation, match=conversation.id):
        door(store, stranger, conversation.id, question.id)
    with pytest.raises(UnknownConversation):
        door(store, user_id, "0" * 32, question.id)
    assert store.delete(stranger, [conversation.id]) == []
    store.delete(user_id, [conversation.id])
    assert store.restore(stranger, [conversation.id]) == []
    with pytest.raises(UnknownConversation):
        door(store, user_id, conversation.id, question.id)
    store.restore(user_id, [conversation.id])
    after = store.conversation(user_id, conversation.id), store.path(user_id, conversation.id)
    assert after == before


def test_a_message_of_another_conversation_is_unknown_here(store: Store, user_id: str) -> None:
    here, there = (store.create_conversation(user_id) for _ in range(2))
    ask(store, user_id, here.id)
    foreign, _ = ask(store, user_id, there.id)
    for attempt in (
        lambda: store.path(user_id, here.id, foreign.id),
        lambda: store.show_branch(user_id, here.id, foreign.id),
        lambda: store.begin_turn(user_id, here.id, foreign.id, "hm", ANSWER, "x"),
        lambda: store.begin_answer(user_id, here.id, foreign.id, ANSWER, "x"),
    ):
        with pytest.raises(UnknownMessage):
            attempt()
    assert len(store.path(user_id, here.id)) == 2


def test_text_that_no_database_can_keep_is_refused_by_name(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    for text in ("half \ud83d of a smile", "a\0b"):
        with pytest.raises(InvalidParameter, match="text"):
            store.rename(user_id, conversation.id, text)
        with pytest.raises(InvalidParameter, match="text"):
            store.begin_turn(user_id, conversation.id, None, text, ANSWER, "me")
    with pytest.raises(InvalidParameter, match="text"):
        store.set_conversation_settings(user_id, conversation.id, {"system_prompt": "\udc00"})
    assert store.path(user_id, conversation.id) == []
    assert store.conversation(user_id, conversation.id).title == ""
