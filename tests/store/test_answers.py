"""Answers while they grow, and what is left of them when their writer dies."""

import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from glm_backend.errors import AnswerRunning
from glm_backend.store import AnswerUpdate, Store
from tests.store.talk import ANSWER, Clock, ask, finished

_ROOT = Path(__file__).parents[2]


def test_an_answer_grows_and_ends_with_its_figures(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    _, answer = store.begin_turn(user_id, conversation.id, None, "你好", ANSWER, "me")
    store.write_answers([AnswerUpdate(answer.id, "你")])
    growing = store.path(user_id, conversation.id)[-1]
    assert (growing.content, growing.status, growing.finish_reason) == ("你", "generating", None)
    update = finished(answer, "你好！")
    store.write_answers([update])
    ended = store.path(user_id, conversation.id)[-1]
    for name in ("content", "status", "prompt_tokens", "completion_tokens", "ttft_ms"):
        assert getattr(ended, name) == getattr(update, name)
    for name in ("duration_ms", "tokens_per_s", "finish_reason", "error"):
        assert getattr(ended, name) == getattr(update, name)
    assert ended.model == ANSWER.model


def test_a_failed_answer_keeps_its_text_and_says_why(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    _, answer = store.begin_turn(user_id, conversation.id, None, "你好", ANSWER, "me")
    store.write_answers([AnswerUpdate(answer.id, "so far", "failed", error="NumericalError")])
    ended = store.path(user_id, conversation.id)[-1]
    assert (ended.content, ended.status, ended.error) == ("so far", "failed", "NumericalError")


def test_many_answers_are_written_together(store: Store, user_id: str) -> None:
    answers = []
    for _ in range(8):
        conversation = store.create_conversation(user_id)
        answers.append(store.begin_turn(user_id, conversation.id, None, "q", ANSWER, "me")[1])
    store.write_answers([])
    store.write_answers([AnswerUpdate(a.id, f"text {n}") for n, a in enumerate(answers)])
    written = [store.path(user_id, a.conversation_id)[-1].content for a in answers]
    assert written == [f"text {n}" for n in range(8)]


def test_answers_of_dead_writers_and_silent_ones_are_marked(
    store: Store, user_id: str, clock: Clock
) -> None:
    conversation = store.create_conversation(user_id)
    owners = ("dead", "silent", "alive")
    dead, silent, alive = (
        store.begin_turn(user_id, conversation.id, None, owner, ANSWER, owner)[1]
        for owner in owners
    )
    ask(store, user_id, conversation.id)
    store.write_answers([AnswerUpdate(dead.id, "dead"), AnswerUpdate(silent.id, "silent")])
    clock.time += timedelta(seconds=90)
    store.write_answers([AnswerUpdate(alive.id, "alive"), AnswerUpdate(dead.id, "dead too")])
    stale_before = clock.time - timedelta(seconds=60)
    assert store.mark_interrupted(lambda owner: owner != "dead", stale_before) == 2
    assert store.mark_interrupted(lambda owner: owner != "dead", stale_before) == 0
    last = {m.id: store.path(user_id, conversation.id, m.id)[-1] for m in (dead, silent, alive)}
    assert [last[m.id].status for m in (dead, silent, alive)] == [
        "interrupted",
        "interrupted",
        "generating",
    ]
    assert last[dead.id].content == "dead too"


_WRITER = """
import sys
import pytest

from glm_backend.errors import AnswerRunning
from glm_backend.store import AnswerUpdate, Store
from tests.store.talk import ANSWER
store = Store.open(sys.argv[1])
user = store.ensure_user("local")
conversation = store.create_conversation(user)
_, answer = store.begin_turn(user, conversation.id, None, "count", ANSWER, "writer")
text = ""
for n in range(10**6):
    text += f"{n} "
    store.write_answers([AnswerUpdate(answer.id, text)])
    print(n, flush=True)
"""


def test_a_killed_writer_leaves_every_word_that_it_wrote(url: str) -> None:
    command = [sys.executable, "-c", _WRITER, url]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 20:
            time.sleep(0.001)
        writer.send_signal(signal.SIGKILL)
        written = max([20, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    store = Store.open(url)
    user_id = store.ensure_user("local")
    row = store.list_conversations(user_id, limit=1)[0]
    content = store.path(user_id, row.id)[-1].content
    assert content.startswith("".join(f"{n} " for n in range(written + 1)))
    assert store.mark_interrupted(lambda owner: False, store.now()) == 1
    assert store.path(user_id, row.id)[-1].status == "interrupted"
    store.close()


def test_nothing_is_asked_below_an_answer_that_is_being_written(store: Store, user_id: str) -> None:
    """By another process, perhaps: this one could only be told half of it."""
    conversation = store.create_conversation(user_id)
    question, answer = store.begin_turn(user_id, conversation.id, None, "one", ANSWER, "another")
    store.write_answers([AnswerUpdate(answer.id, "half")])
    with pytest.raises(AnswerRunning):
        store.begin_turn(user_id, conversation.id, answer.id, "two", ANSWER, "me")
    with pytest.raises(AnswerRunning):
        store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me", continues=answer.id)
    assert len(store.path(user_id, conversation.id)) == 2
    store.write_answers([finished(answer, "whole")])
    store.begin_turn(user_id, conversation.id, answer.id, "two", ANSWER, "me")
