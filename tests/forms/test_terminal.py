"""The chat in the terminal: piped, and in a real pseudo-terminal with Ctrl-C."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("there are no pseudo-terminals", allow_module_level=True)

import pty

from glm_backend.models.model import Message
from glm_backend.terminal import TerminalChat
from tests.forms.fake_terminal import Stub

SCRIPT = Path(__file__).with_name("fake_terminal.py")
GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "forms_golden.json"
_IN_TERMINAL = 'tty=$1; shift; exec "$@" <"$tty" >"$tty" 2>&1'
WELCOME = "欢迎使用 ChatGLM2-6B 模型，输入内容即可进行对话，clear 清空对话历史，stop 终止程序\n"


def piped(typed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT)],
        input=typed,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )


class Terminal:
    """The program in a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        master, slave = pty.openpty()
        self._fd = master
        self._unread = b""
        program = [sys.executable, str(SCRIPT), *arguments]
        # Whoever begins a session and then opens a terminal is given its Ctrl-C.
        self.process = subprocess.Popen(
            ["sh", "-c", _IN_TERMINAL, "sh", os.ttyname(slave), *program],
            start_new_session=True,
            env=os.environ | {"TERM": "dumb"},
        )
        self._slave = slave  # open until the program has opened it too

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until `text` has come, after what was waited for before."""
        wanted = text.encode()
        while wanted not in self._unread:
            ready, _, _ = select.select([self._fd], [], [], 20)
            assert ready, f"{text!r} did not come after {self._unread.decode(errors='replace')!r}"
            self._unread += os.read(self._fd, 4096)
        self._unread = self._unread.partition(wanted)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)
        os.close(self._slave)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_one(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def test_piped_it_writes_what_the_original_wrote() -> None:
    done = piped("你好\nclear\n  stop \n")
    answer = "\n用户：\nChatGLM：你好👋 你好\n第二行\n"
    assert done.stdout == f"{WELCOME}{answer}\n用户：{WELCOME}\n用户："
    assert done.stderr == ""
    if GOLDEN.is_file():
        recorded = json.loads(GOLDEN.read_text(encoding="utf-8"))["cli_demo.py"]
        assert piped(recorded["stdin"]).stdout == recorded["stdout"]


def test_the_conversation_grows_until_it_is_cleared() -> None:
    out = piped("count\ncount\nclear\ncount\n").stdout
    assert [part.split()[0] for part in out.split("ChatGLM：")[1:]] == ["1", "3", "1"]


def test_the_end_of_the_input_and_empty_lines(tmp_path: Path) -> None:
    assert piped("\n  \n").stdout == f"{WELCOME}\n用户：\n用户：\n用户：\n"


def test_an_error_is_said_on_stderr_and_is_no_part_of_the_conversation() -> None:
    done = piped("fail\ncount\n")
    assert "as asked" in done.stderr
    assert "as asked" not in done.stdout
    assert "1 messages" in done.stdout


def test_whether_an_answer_failed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for typed, well in ((["hi", "count"], True), (["fail", "count"], False)):
        lines = iter([*typed, "stop"])
        monkeypatch.setattr("builtins.input", lambda _, lines=lines: next(lines))
        assert TerminalChat(Stub(), "ChatGLM2-6B").run() is well


def test_a_model_cannot_write_control_characters() -> None:
    out = piped("escape\n").stdout
    assert "ChatGLM：]0;title2Jtext\n" in out


def test_ctrl_c_ends_the_answer_and_not_the_program(terminal: Callable[..., Terminal]) -> None:
    chat = terminal("0.05")
    chat.wait_for("用户：")
    chat.type("long\n")
    chat.wait_for("word word")
    chat.type("\x03")
    chat.wait_for("用户：")
    chat.type("count\n")
    chat.wait_for("3 messages")
    chat.wait_for("用户：")
    chat.type("half a quest")
    chat.wait_for("half a quest")
    # readline notices a Ctrl-C in its first milliseconds at the next key only, hence one more.
    chat.type("\x03\n")
    chat.wait_for("用户：")
    chat.type("stop\n")
    assert chat.process.wait(10) == 0


def test_ctrl_c_before_the_answer_begins_ends_it_and_not_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Impatient(Stub):
        def count_tokens(self, messages: Sequence[Message]) -> int:
            if messages[-1]["content"] == "long":
                signal.raise_signal(signal.SIGINT)
            return super().count_tokens(messages)

    lines = iter(["long", "count", "stop"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert TerminalChat(Impatient(), "ChatGLM2-6B").run()
    said = capsys.readouterr().out
    assert "word" not in said
    assert "1 messages" in said


def test_questions_are_remembered_for_the_arrow_keys(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    first = terminal("0", str(tmp_path))
    first.wait_for("用户：")
    first.type("remember me\n")
    first.wait_for("第二行")
    first.wait_for("用户：")
    first.type("\x04")
    assert first.process.wait(10) == 0
    kept = tmp_path / "terminal_history"
    assert "remember me" in kept.read_text(encoding="utf-8")
    assert kept.stat().st_mode & 0o077 == 0
    second = terminal("0", str(tmp_path))
    second.wait_for("用户：")
    second.type("\x1b[A\n")
    second.wait_for("你好👋 remember me")
