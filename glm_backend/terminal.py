"""A chat in the terminal, in the words of the original cli_demo.py.

`clear` forgets the conversation, `stop` ends the program, Ctrl-C ends the answer. Nothing is kept
but the questions typed, for the arrow keys.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from glm_backend.completion import Completer, Completion, Text
from glm_backend.context import fit
from glm_backend.engine.request import Failed, SamplingParams
from glm_backend.errors import GLMError
from glm_backend.models.model import Message

_WELCOME = "欢迎使用 {model} 模型，输入内容即可进行对话，clear 清空对话历史，stop 终止程序"
_QUESTION = "\n用户："
_ANSWER = "\nChatGLM："
_CLEAR_SCREEN = "\x1b[2J\x1b[H"
#: The originals' max_length for a whole conversation; the context may be shorter.
_SAMPLING = SamplingParams(max_new_tokens=8192)
#: Control characters but line ends and tabs: a model's text must not move the cursor or more.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_KEPT_QUESTIONS = 1000


class TerminalChat:
    """One conversation on stdin and stdout. title: the model's name in the welcome line."""

    def __init__(self, model: Completer, title: str) -> None:
        self._model = model
        self._welcome = _WELCOME.format(model=title)
        self._history: list[Message] = []

    def run(self) -> bool:
        """Until `stop` or the end of the input. False where an answer failed."""
        _say(f"{self._welcome}\n")
        failed = 0
        for query in _queries():
            if query.strip() == "clear":
                self._clear()
            elif query.strip():
                failed += not self._answer(query)
        return not failed

    def _clear(self) -> None:
        self._history = []
        _say(f"{_CLEAR_SCREEN if sys.stdout.isatty() else ''}{self._welcome}\n")

    def _answer(self, query: str) -> bool:
        """Says the answer; what goes wrong is said on stderr and leaves the conversation as is."""
        asked: list[Message] = [*self._history, {"role": "user", "content": query}]
        _say(_ANSWER)
        try:
            text = self._written(asked)
        except GLMError as error:
            _say("\n")
            sys.stderr.write(f"{error}\n")
            return False
        _say("\n")
        self._history = [*asked, {"role": "assistant", "content": text}] if text else self._history
        return True

    def _written(self, asked: list[Message]) -> str:
        """The text of the answer, said while it grows; raises what ended it."""
        text = ""
        with _stopped_by_ctrl_c() as ctrl_c:
            prompt = fit(self._model, "", asked, _SAMPLING)
            params = replace(_SAMPLING, max_new_tokens=prompt.max_new_tokens)
            completion = self._model.complete(prompt.messages, params)
            ctrl_c.ends(completion)
            for event in completion.events():
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Text):
                    text += event.text
                    _say(event.text.translate(_CONTROLS))
        return text


def _queries() -> Iterator[str]:
    """What is typed, until `stop` or the end of the input; Ctrl-C drops what is half typed."""
    while True:
        try:
            query = input(_QUESTION)
        except EOFError:
            _say("\n")
            return
        except KeyboardInterrupt:
            _say("\n")
            continue
        if query.strip() == "stop":
            return
        # What a terminal in another encoding sends comes as halves of surrogate pairs.
        yield query.encode("utf-8", "replace").decode("utf-8")


class _CtrlC:
    """Ends an answer, also one that is only being prepared when it is pressed."""

    def __init__(self) -> None:
        self._pressed = False
        self._completion: Completion | None = None

    def press(self, number: int, frame: FrameType | None) -> None:
        self._pressed = True
        if self._completion is not None:
            # In a thread: the handler interrupts this one, which may hold the lock of `cancel`.
            threading.Thread(target=self._completion.cancel).start()

    def ends(self, completion: Completion) -> None:
        self._completion = completion
        if self._pressed:
            completion.cancel()


@contextmanager
def _stopped_by_ctrl_c() -> Iterator[_CtrlC]:
    ctrl_c = _CtrlC()
    before = signal.signal(signal.SIGINT, ctrl_c.press)
    try:
        yield ctrl_c
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def remembered_questions(path: Path) -> Iterator[None]:
    """Arrow keys that reach the questions of earlier days, where there is a terminal."""
    if not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    with suppress(OSError):  # the first time there is none
        readline.read_history_file(path)
    readline.set_history_length(_KEPT_QUESTIONS)
    try:
        yield
    finally:
        with suppress(OSError):  # a read-only folder: nothing is remembered
            path.touch(mode=0o600)
            readline.write_history_file(path)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
