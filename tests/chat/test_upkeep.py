"""What the chat does beside answering: ratings, and emptying the trash."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from glm_backend import recorder
from glm_backend.chat import ChatService
from glm_backend.store import ConversationFilter, Store
from glm_backend.testing import FakeModel
from tests.chat.test_chat import Room

IN_TRASH = ConversationFilter(trash=True)


def test_a_rating_and_its_comment_are_kept_and_told_to_other_pages(tmp_path: Path) -> None:
    room = Room(tmp_path)
    answer = room.ask("hi")
    before = room.chat.version(room.conversation)
    room.chat.rate(room.user, room.conversation, answer.message_id, -1, "  too\x00 long ")
    assert (room.last().rating, room.last().comment) == (-1, "too␀ long")
    assert room.chat.version(room.conversation) > before
    room.chat.rate(room.user, room.conversation, answer.message_id, 1)
    assert (room.last().rating, room.last().comment) == (1, "too␀ long")
    room.chat.rate(room.user, room.conversation, answer.message_id, None, "")
    assert (room.last().rating, room.last().comment) == (None, None)
    room.close()


@pytest.mark.parametrize(("trash_days", "left"), [(30, 1), (0, 2)])
def test_the_trash_is_emptied_of_what_has_been_in_it_for_long(
    tmp_path: Path, trash_days: int, left: int
) -> None:
    url = f"sqlite:///{tmp_path / 'chat.sqlite3'}"
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for days_ago in (31, 29):
        store = Store.open(url, now=lambda days=days_ago: now - timedelta(days=days))
        user = store.ensure_user("local")
        store.delete(user, [store.create_conversation(user).id])
        store.close()
    store = Store.open(url, now=lambda: now)
    ChatService(store, FakeModel, trash_days=trash_days).close()
    assert store.count_conversations(user, IN_TRASH) == left
    store.close()


def test_a_clock_that_is_set_makes_nobody_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = recorder._own_name()
    assert recorder._is_alive(mine)
    born, boot = psutil.Process().create_time(), psutil.boot_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: born + 3600)
    assert not recorder._is_alive(mine)  # another process, with the number of the one before
    monkeypatch.setattr(psutil, "boot_time", lambda: boot + 3600)
    assert recorder._is_alive(mine)
