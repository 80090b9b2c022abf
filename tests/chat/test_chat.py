"""How one message flows, on a real database and a model that does what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_backend.chat import MAX_MESSAGE_CHARACTERS, ChatService
from glm_backend.errors import (
    AnswerRunning,
    ContextOverflow,
    EmptyMessage,
    EngineBusy,
    GLMError,
    InvalidParameter,
    MessageTooLong,
    ModelNotReady,
    NumericalError,
    StoreFull,
    UnknownConversation,
    UnknownMessage,
)
from glm_backend.live_answer import LiveAnswer
from glm_backend.readable import readable
from glm_backend.store.store import Store
from glm_backend.testing import FakeModel


class Room:
    """A chat service with its user and one conversation."""

    def __init__(self, folder: Path, model: FakeModel | None = None) -> None:
        self.model = model or FakeModel()
        self.store = Store.open(f"sqlite:///{folder / 'chat.sqlite3'}")
        self.chat = ChatService(self.store, self.give_model)
        self.user = self.store.ensure_user("local")
        self.conversation = self.store.create_conversation(self.user).id

    def give_model(self) -> FakeModel:
        return self.model

    def send(self, text: str, **overrides: object) -> LiveAnswer:
        return self.chat.send(self.user, self.conversation, text, overrides)

    def ask(self, text: str, **overrides: object) -> LiveAnswer:
        answer = self.send(text, **overrides)
        assert answer.wait_saved(10)
        return answer

    def texts(self) -> list[tuple[str, str]]:
        path = self.store.path(self.user, self.conversation)
        return [(message.role, message.content) for message in path]

    def last(self) -> Any:
        return self.store.path(self.user, self.conversation)[-1]

    def close(self) -> None:
        self.chat.close()
        self.store.close()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


def test_a_question_is_answered_and_both_are_kept_with_figures(room: Room) -> None:
    room.ask("hi", temperature=0.3, seed=5, min_p=0.1, typical_p=0.9)
    assert room.texts() == [("user", "hi"), ("assistant", "Hello from the fake model.")]
    answer = room.last()
    assert (answer.status, answer.finish_reason) == ("complete", "stop")
    assert (answer.model, answer.quantization) == ("fake", "none")
    assert (answer.temperature, answer.seed) == (0.3, 5)
    assert (answer.min_p, answer.typical_p) == (0.1, 0.9)
    assert (answer.prompt_tokens, answer.completion_tokens) == (2, 6)
    assert answer.ttft_ms > 0
    assert answer.duration_ms > answer.ttft_ms


def test_the_question_is_safe_before_the_first_token(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(delay_s=30))
    answer = room.send("remember me")
    other = Store.open(f"sqlite:///{tmp_path / 'chat.sqlite3'}")
    seen = other.path(room.user, room.conversation)
    assert [(m.content, m.status) for m in seen] == [
        ("remember me", "complete"),
        ("", "generating"),
    ]
    other.close()
    answer.cancel()
    room.close()


def test_a_seed_is_drawn_and_kept_when_none_is_given(room: Room) -> None:
    room.ask("hi")
    assert room.model.asked[0][1].seed == room.last().seed
    assert room.last().seed is not None


def test_the_next_question_carries_what_was_said(room: Room) -> None:
    room.ask("one", system_prompt="be brief")
    room.ask("two", system_prompt="be brief")
    assert [m["role"] for m in room.model.asked[1][0]] == ["system", "user", "assistant", "user"]


def test_stop_ends_the_answer_and_keeps_its_text(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(words=["go "] * 1000, pause_s=0.005))
    answer = room.send("talk")
    next(answer.tail())
    assert room.chat.stop(room.conversation)
    assert (room.last().status, room.last().finish_reason) == ("stopped", "cancelled")
    assert room.last().content == answer.text
    assert answer.text.startswith("go ")
    assert room.chat.live(room.conversation) is None
    room.close()


def test_stop_before_the_first_token(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(delay_s=30))
    room.send("talk")
    assert room.chat.stop(room.conversation)
    assert (room.last().status, room.last().content) == ("stopped", "")
    room.close()


def test_any_number_of_readers_see_the_whole_answer(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(words=[f"{i} " for i in range(60)], pause_s=0.002))
    answer = room.send("count")
    seen: list[str] = []
    readers = [
        threading.Thread(target=lambda: seen.append("".join(answer.tail(50)))) for _ in range(5)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert seen == ["".join(f"{i} " for i in range(60))] * 5
    room.close()


def test_only_one_answer_at_a_time_in_a_conversation(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(delay_s=30))
    first = room.send("one")
    with pytest.raises(AnswerRunning):
        room.send("two")
    with pytest.raises(AnswerRunning):
        room.chat.regenerate(room.user, room.conversation, first.message_id)
    assert room.texts() == [("user", "one"), ("assistant", "")]
    room.close()


def test_two_tabs_that_send_at_once_get_one_answer(room: Room) -> None:
    outcomes: list[object] = []

    def send() -> None:
        try:
            outcomes.append(room.send("now", seed=1))
        except AnswerRunning as error:
            outcomes.append(error)

    room.model.delay_s = 1.0
    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(outcome, LiveAnswer) for outcome in outcomes) == 1
    assert len(room.texts()) == 2


def test_regenerating_keeps_the_older_version(room: Room) -> None:
    first = room.ask("hi")
    room.model.words = ["Again."]
    again = room.chat.regenerate(room.user, room.conversation, first.message_id)
    assert again.wait_saved(10)
    assert room.texts() == [("user", "hi"), ("assistant", "Again.")]
    question_id = room.last().parent_id
    versions = room.store.versions(room.user, room.conversation)[question_id]
    assert versions == [first.message_id, again.message_id]
    assert len(room.model.asked[1][0]) == 1  # the older answer is not part of the question


def test_editing_a_question_opens_a_branch(room: Room) -> None:
    room.ask("hi")
    question = room.store.path(room.user, room.conversation)[0]
    assert room.chat.edit(room.user, room.conversation, question.id, "hello").wait_saved(10)
    assert room.texts()[0] == ("user", "hello")
    room.store.show_branch(room.user, room.conversation, question.id)
    assert room.texts()[0] == ("user", "hi")


def test_a_failing_answer_is_marked_and_the_next_one_works(room: Room) -> None:
    room.model.error = NumericalError()
    room.ask("hi")
    assert (room.last().status, room.last().finish_reason) == ("failed", "error")
    assert "not finite" in room.last().error
    assert room.last().content == "Hello from the fake model."
    room.model.error = None
    room.ask("again")
    assert room.last().status == "complete"


def test_a_refusal_by_the_engine_is_an_answer_that_failed(room: Room) -> None:
    room.model.refuse = EngineBusy(waiting=64, place=65)
    room.ask("hi")
    assert (room.last().status, room.last().content) == ("failed", "")
    room.model.refuse = None
    room.ask("again")
    sent = room.model.asked[0][0]
    assert [m["content"] for m in sent] == ["again"]  # what was never answered is not repeated


def test_the_model_is_told_who_asks(room: Room) -> None:
    room.ask("hi")
    other = room.store.ensure_user("other")
    theirs = room.store.create_conversation(other).id
    assert room.chat.send(other, theirs, "me, too").wait_saved(10)
    assert room.model.clients == [room.user, other]


def test_an_answer_knows_its_place_in_line_until_the_model_is_at_it(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(delay_s=0.2, place=3))
    answer = room.send("hi")
    assert (answer.place, answer.text) == (3, "")
    next(answer.tail())
    assert answer.place == 0
    room.close()


def test_left_out_turns_are_recorded(room: Room) -> None:
    room.model.context_length = 60
    for i in range(6):
        room.ask(f"question {i} " + "word " * 10, max_new_tokens=10)
    assert room.last().left_out > 0


@pytest.mark.parametrize(
    ("text", "overrides", "error"),
    [
        ("", {}, EmptyMessage),
        (" \n\t　", {}, EmptyMessage),
        ("x" * (MAX_MESSAGE_CHARACTERS + 1), {}, MessageTooLong),
        ("word " * 200_000, {}, ContextOverflow),
        ("hi", {"temperature": 99}, InvalidParameter),
        ("hi", {"max_new_tokens": "many"}, InvalidParameter),
    ],
)
def test_what_is_refused_leaves_no_trace(
    room: Room, text: str, overrides: dict[str, object], error: type[GLMError]
) -> None:
    with pytest.raises(error):
        room.send(text, **overrides)
    assert room.texts() == []
    room.ask("fine")


def test_without_a_model_nothing_is_stored(tmp_path: Path) -> None:
    room = Room(tmp_path)

    def none() -> FakeModel:
        raise ModelNotReady

    room.give_model, room.chat._model = none, none  # type: ignore[method-assign]
    with pytest.raises(ModelNotReady):
        room.send("hi")
    assert room.texts() == []
    room.close()


def test_unknown_conversations_and_messages_are_named(room: Room) -> None:
    with pytest.raises(UnknownConversation, match="nowhere"):
        room.chat.send(room.user, "nowhere", "hi")
    with pytest.raises(UnknownMessage, match="nothing"):
        room.chat.regenerate(room.user, room.conversation, "nothing")
    room.ask("hi")


def test_another_users_conversation_is_unknown(room: Room) -> None:
    stranger = room.store.ensure_user("stranger")
    with pytest.raises(UnknownConversation):
        room.chat.send(stranger, room.conversation, "hi")


def test_settings_of_user_conversation_and_call_stand_in_that_order(room: Room) -> None:
    room.store.set_user_settings(room.user, {"temperature": 0.1, "top_k": 5, "language": "zh"})
    room.store.set_conversation_settings(room.user, room.conversation, {"temperature": 0.2})
    got = room.chat.parameters(room.user, room.conversation, {"top_p": 0.5}).sampling
    assert (got.temperature, got.top_k, got.top_p) == (0.2, 5, 0.5)


def test_odd_characters_are_kept_visible(room: Room) -> None:
    room.ask("a\x00b\x1b[31m \ud83d 😀 \u202eمرحبا\r\nend")
    assert room.texts()[0][1] == "a␀b␛[31m � 😀 \u202eمرحبا\nend"


@given(st.text())
def test_readable_text_can_be_stored_and_is_left_alone_when_it_could_be(text: str) -> None:
    clean = readable(text)
    clean.encode("utf-8")
    assert readable(clean) == clean
    assert not any(ord(c) < 32 and c not in "\t\n" for c in clean)


def test_a_full_disk_keeps_the_answer_in_memory_until_there_is_room(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[..., None] = room.store.write_answers
    full = threading.Event()
    full.set()

    def failing(updates: object) -> None:
        if full.is_set():
            raise StoreFull(database="chat.sqlite3")
        write(updates)

    monkeypatch.setattr(room.store, "write_answers", failing)
    answer = room.send("hi")
    "".join(answer.tail())
    assert not answer.wait_saved(0.5)
    assert room.chat.live(room.conversation) is answer
    assert isinstance(answer.save_error, StoreFull)
    with pytest.raises(StoreFull):
        room.send("more")
    full.clear()
    assert answer.wait_saved(10)
    assert answer.save_error is None
    assert room.texts()[-1] == ("assistant", "Hello from the fake model.")


def test_closing_saves_what_was_said_so_far(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(words=["go "] * 1000, pause_s=0.005))
    answer = room.send("talk")
    next(answer.tail())
    room.close()
    store = Store.open(f"sqlite:///{tmp_path / 'chat.sqlite3'}")
    kept = store.path(room.user, room.conversation)[-1]
    assert (kept.status, kept.content) == ("stopped", answer.text)
    store.close()


KILLED = """
import os, signal, sys, time
from glm_backend.chat import ChatService
from glm_backend.store.store import Store
from glm_backend.testing import FakeModel

store = Store.open(sys.argv[1])
model = FakeModel(words=[f"{i} " for i in range(10**6)], pause_s=0.001)
chat = ChatService(store, lambda: model)
user = store.ensure_user("local")
answer = chat.send(user, store.create_conversation(user).id, "talk", {"max_new_tokens": 32768})
time.sleep(0.6)
print(answer.tokens, flush=True)
time.sleep(0.25)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_at_most_the_last_moment(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'chat.sqlite3'}"
    root = Path(__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, url],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    tokens_at_print = int(process.stdout)
    store = Store.open(url)
    room = ChatService(store, FakeModel)
    user = store.ensure_user("local")
    (row,) = store.list_conversations(user, limit=10)
    question, answer = store.path(user, row.id)
    assert (question.content, answer.status) == ("talk", "interrupted")
    assert len(answer.content.split()) >= tokens_at_print
    assert room.live(row.id) is None
    room.close()
    store.close()


def test_an_answer_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(delay_s=30))
    room.send("talk")
    other = Store.open(f"sqlite:///{tmp_path / 'chat.sqlite3'}")
    second = ChatService(other, FakeModel)
    assert room.last().status == "generating"
    second.close()
    other.close()
    room.close()


def test_a_question_without_an_answer_is_not_told_before_another(room: Room) -> None:
    """A fork may end with one, and an imported conversation, too."""
    room.ask("one")
    fork = room.store.fork_conversation(
        room.user, room.conversation, room.store.path(room.user, room.conversation)[0].id
    )
    assert room.chat.send(room.user, fork.id, "two").wait_saved(10)
    assert [m["content"] for m in room.model.asked[-1][0]] == ["two"]
