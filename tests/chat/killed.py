"""A process that is killed while it writes eight conversations, and what is looked for after it.

`Killed.run` is one such death. The process tells over a pipe what it has pushed, and when; the
clock is the machine's own, the same for both.
"""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from glm_backend.chat import ChatService
from glm_backend.store import Message, Store
from glm_backend.testing import FakeModel

CONVERSATIONS = 8
_ROOT = Path(__file__).parents[2]

_WRITER = """
import itertools, os, sys, threading, time
from glm_backend.chat import ChatService
from glm_backend.store import Store
from glm_backend.testing import FakeCompletion, FakeModel

def tell(*what):
    os.write(1, (" ".join(map(str, what)) + "\\n").encode())

class Telling(FakeCompletion):
    def events(self):
        for event in super().events():
            if hasattr(event, "tokens"):
                tell("pushed", self.name, event.tokens, time.monotonic())
            yield event

class Teller(FakeModel):
    def complete(self, messages, params, *, client=""):
        told = Telling(self, self.words, params, 1)
        told.name = messages[-1]["content"]
        return told

store = Store.open(sys.argv[1])
model = Teller([f"w{n} " for n in range(1, 61)], pause_s=0.01, context_length=10**6)
chat = ChatService(store, lambda: model)
user = store.ensure_user("local")

def talk(number):
    conversation = store.create_conversation(user).id
    for turn in itertools.count():
        name = f"{sys.argv[2]}-{number}-{turn}"
        answer = chat.send(user, conversation, name)
        tell("asked", name, conversation)
        "".join(answer.tail())
        assert answer.wait_saved(10)
        tell("ended", name, answer.tokens)

for number in range(int(sys.argv[3])):
    threading.Thread(target=talk, args=(number,)).start()
"""


@dataclass
class _Told:
    """What the process said of one question: by its text, which is its name."""

    conversation: str = ""
    ended: bool = False
    pushed_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Death:
    """behind_s: the age of the oldest word that was lost, of all answers, 0 without one.

    answers: how many were being written. questions: how many were asked in this life.
    """

    behind_s: float
    answers: int
    questions: int


class Killed:
    """One database through many deaths."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._file = folder / "killed.sqlite3"
        self._url = f"sqlite:///{self._file}"
        self._random = random.Random(seed)
        self._lives = 0
        self._kept: dict[str, str] = {}  # every answer that had ended, by its question

    def run(self) -> Death:
        """Lets a process write, kills it at a random moment, and checks what is left."""
        self._lives += 1
        told, killed_s = self._write_until_killed()
        left = self._interrupted()
        self._check_file()
        behind = 0.0
        for name, its in told.items():
            question, answer = left[name]
            assert question.conversation_id == its.conversation or not its.conversation
            words = answer.content.split()
            assert words == [f"w{n}" for n in range(1, len(words) + 1)]
            if its.ended:
                assert (answer.status, len(words)) == ("complete", 60)
                self._kept[name] = answer.content
            else:
                assert answer.status in ("interrupted", "complete")
                if lost := its.pushed_s[len(words) :]:
                    behind = max(behind, killed_s - lost[0])
        for name, content in self._kept.items():
            assert left[name][1].content == content
        running = sum(not its.ended for its in told.values())
        return Death(behind, running, len(told))

    def _write_until_killed(self) -> tuple[dict[str, _Told], float]:
        command = [sys.executable, "-c", _WRITER, self._url, str(self._lives), str(CONVERSATIONS)]
        with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(self._random.uniform(0.0, 1.5))
            killed_s = time.monotonic()
            writer.send_signal(signal.SIGKILL)
            lines = [first, *writer.stdout.readlines()]
        told: dict[str, _Told] = {}
        for line in lines:
            if not line.endswith(b"\n"):
                continue
            kind, name, what, *rest = line.decode().split()
            its = told.setdefault(name, _Told())
            if kind == "asked":
                its.conversation = what
            elif kind == "ended":
                its.ended = True
            elif float(rest[0]) <= killed_s:
                its.pushed_s.append(float(rest[0]))
        return told, killed_s

    def _interrupted(self) -> dict[str, tuple[Message, Message]]:
        """Opens the database as the next start does; every question of it with its answer."""
        store = Store.open(self._url)
        chat = ChatService(store, FakeModel)  # whose start marks what was cut off
        user = store.ensure_user("local")
        found: dict[str, tuple[Message, Message]] = {}
        for row in store.list_conversations(user, limit=10**6):
            path = store.path(user, row.id)
            assert [m.role for m in path] == ["user", "assistant"] * (len(path) // 2)
            pairs = zip(path[::2], path[1::2], strict=True)
            found |= {question.content: (question, answer) for question, answer in pairs}
        assert all(answer.status != "generating" for _, answer in found.values())
        chat.close()
        store.close()
        return found

    def _check_file(self) -> None:
        with closing(sqlite3.connect(self._file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            connection.execute("INSERT INTO search_index (search_index) VALUES ('integrity-check')")
