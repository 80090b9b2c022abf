"""That answers reach the database: whatever a model writes, and before the next question."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glm_backend.errors import InvalidParameter, NumericalError
from glm_backend.store.store import Store
from glm_backend.testing import FakeModel
from tests.chat.test_chat import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    yield room
    room.close()


def test_no_character_of_a_model_keeps_answers_from_being_saved(tmp_path: Path) -> None:
    room = Room(tmp_path, FakeModel(words=("a\0b", "\ud83d", " c\x1b[31m")))
    answer = room.ask("hi")
    assert room.last().content == answer.text == "a␀b\ufffd c\x1b[31m"
    assert room.last().status == "complete"
    room.model.error = NumericalError()
    room.model.words = ("\0",)
    room.ask("again")
    assert (room.last().content, room.last().status) == ("␀", "failed")
    room.close()


def test_an_answer_that_cannot_be_written_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(tmp_path, FakeModel(pause_s=0.05))
    write, bad = room.store.write_answers, room.send("bad").message_id

    def refusing(updates: Any) -> None:
        if any(update.message_id == bad for update in updates):
            raise InvalidParameter(name="text", value="bad", allowed="good")
        write(updates)

    monkeypatch.setattr(room.store, "write_answers", refusing)
    other = room.store.create_conversation(room.user).id
    assert room.chat.send(room.user, other, "good").wait_saved(10)
    with pytest.raises(InvalidParameter):
        room.send("more")
    monkeypatch.undo()
    room.close()
    store = Store.open(f"sqlite:///{tmp_path / 'chat.sqlite3'}")
    assert store.path(room.user, room.conversation)[-1].status in ("stopped", "complete")
    store.close()


def test_the_next_question_waits_until_the_answer_before_is_saved(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = room.store.write_answers

    def slowly(updates: Any) -> None:
        time.sleep(0.4)
        write(updates)

    monkeypatch.setattr(room.store, "write_answers", slowly)
    answer = room.send("one")
    while answer.running:
        time.sleep(0.01)
    room.ask("two")
    told = [message["content"] for message in room.model.asked[-1][0]]
    assert told == ["one", "Hello from the fake model.", "two"]
