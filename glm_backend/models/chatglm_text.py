"""What the programs of the ChatGLM family do with an answer's text before it is shown.

Pure functions of text. ChatGLM3 may call a tool; the authors hand that call to eval(), here it is
parsed and must consist of literals.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Sequence
from typing import Any

from glm_backend.models.model import Detokenizer

#: What the models write where their training data had a date.
_TRAINING_TIME = ("[[训练时间]]", "2023年")
_WIDE = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_HAN = "[\u4e00-\u9fff]"
_MARK = f"[{''.join(_WIDE)}]"
#: A mark on either side of which a Chinese character stands.
_NARROW = re.compile(f"(?<={_HAN}){_MARK}|{_MARK}(?={_HAN})")


def chatglm2_answer(text: str) -> str:
    """ChatGLM2: no space around it, and the year that the model leaves open."""
    return text.strip().replace(*_TRAINING_TIME)


def chatglm1_answer(text: str) -> str:
    """The first ChatGLM: the same, and punctuation beside a Chinese character becomes wide."""
    return _widened(chatglm2_answer(text))


def _widened(text: str) -> str:
    return _NARROW.sub(lambda mark: _WIDE[mark[0]], text)


class AnswerDetokenizer:
    """The same to an answer that comes token by token: what is given out stays as it is.

    wide: whether it is an answer of the first ChatGLM. behind: the text that it carries on.
    """

    def __init__(self, detokenizer: Detokenizer, *, wide: bool = False, behind: str = "") -> None:
        self._detokenizer = detokenizer
        self._wide = wide
        self._held = ""
        self._last = behind[-1:]

    def push(self, token_id: int) -> str:
        """The characters that are certain.

        Held back are spaces at the end, half a mark, and punctuation whose neighbour may widen it.
        """
        self._hold(self._detokenizer.push(token_id))
        settled = len(self._held.rstrip())
        mark = _TRAINING_TIME[0]
        half = next((n for n in range(len(mark) - 1, 0, -1) if self._held.endswith(mark[:n])), 0)
        count = settled - half
        if self._wide and self._held[:count].endswith(tuple(_WIDE)):
            count -= 1
        return self._given(count)

    def finish(self) -> str:
        self._hold(self._detokenizer.finish())
        return self._given(len(self._held.rstrip()))

    def _hold(self, text: str) -> None:
        self._held = (self._held + text).replace(*_TRAINING_TIME)
        if not self._last:
            self._held = self._held.lstrip()

    def _given(self, count: int) -> str:
        out, rest = self._held[:count], self._held[count:]
        given = out
        if self._wide:  # each mark sees the character before it, and the one behind it
            given = _widened(self._last + out + rest[:1])[len(self._last) :][: len(out)]
        self._held, self._last = rest, out[-1:] or self._last
        return given


def chatglm3_answer(
    output: str, history: Sequence[dict[str, Any]]
) -> tuple[str | dict[str, Any], list[dict[str, Any]]]:
    """ChatGLM3: the answer or the tool call it ends with, and the history with its messages.

    The first line of a message is its metadata: empty, or the tool that is called. With tools in
    the history, a call is {"name", "parameters"}; what is no call of literals, and anything called
    without tools, is {"name", "content"}. `history` stays as it is.
    """
    messages: list[dict[str, Any]] = copy.deepcopy(list(history))
    answer: str | dict[str, Any] = ""
    for part in output.split("<|assistant|>"):
        metadata, separator, content = part.partition("\n")
        if not separator:
            metadata, content = "", part
        if metadata.strip():
            answer = _called(metadata.strip(), content, messages)
        else:
            content = content.strip()
            answer = content.replace(*_TRAINING_TIME)
        messages.append({"role": "assistant", "metadata": metadata, "content": content})
    return answer, messages


def _called(name: str, content: str, messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if messages and messages[0]["role"] == "system" and "tools" in messages[0]:
        inside = "\n".join(content.split("\n")[1:-1])  # between the lines of ```
        parameters = tool_parameters(inside)
        if parameters is not None:
            return {"name": name, "parameters": parameters}
    return {"name": name, "content": content}


def tool_parameters(call: str) -> dict[str, Any] | None:
    """The arguments of "tool_call(key=literal, ...)"; None for anything else. Nothing is run."""
    try:
        tree = ast.parse(call.strip(), mode="eval").body
        match tree:
            case ast.Call(func=ast.Name(id="tool_call"), args=[], keywords=keywords):
                named = {k.arg: ast.literal_eval(k.value) for k in keywords}
                return None if None in named else {str(k): v for k, v in named.items()}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    return None
