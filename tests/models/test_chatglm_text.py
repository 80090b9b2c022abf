"""What is done with an answer's text; a tool call is parsed and nothing of it is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_backend.models.chatglm_text import (
    AnswerDetokenizer,
    chatglm1_answer,
    chatglm2_answer,
    chatglm3_answer,
    tool_parameters,
)

TOOLS: list[dict[str, Any]] = [{"role": "system", "content": "x", "tools": [{"name": "track"}]}]


def test_chatglm2_and_the_first_one() -> None:
    text = " 截至[[训练时间]],对吗? ok, x:y \n"
    assert chatglm2_answer(text) == "截至2023年,对吗? ok, x:y"
    assert chatglm1_answer(text) == "截至2023年，对吗？ ok, x:y"


class Letters:
    """A token is a character."""

    def push(self, token_id: int) -> str:
        return chr(token_id)

    def finish(self) -> str:
        return ""


PIECES = st.sampled_from(
    ["[", "]", "[[训练", "时间]]", "[[训练时间]]", " ", "\n", "a", "好", ",", "!", ":", "?"]
)


@given(st.lists(PIECES).map("".join))
def test_an_answer_that_comes_in_pieces_is_the_same(text: str) -> None:
    for wide, whole in ((False, chatglm2_answer(text)), (True, chatglm1_answer(text))):
        detokenizer = AnswerDetokenizer(Letters(), wide=wide)
        pieces = [detokenizer.push(ord(letter)) for letter in text]
        assert "".join([*pieces, detokenizer.finish()]) == whole


def test_an_answer_that_is_carried_on_keeps_the_space_at_its_beginning() -> None:
    detokenizer = AnswerDetokenizer(Letters(), behind="begun")
    pieces = [detokenizer.push(ord(letter)) for letter in " and more "]
    assert "".join([*pieces, detokenizer.finish()]) == " and more"


def test_a_plain_answer_of_chatglm3() -> None:
    history = [{"role": "user", "content": "q"}]
    answer, after = chatglm3_answer("\n 截至[[训练时间]]。", history)
    assert answer == "截至2023年。"
    assert after[1:] == [{"role": "assistant", "metadata": "", "content": "截至[[训练时间]]。"}]
    assert len(history) == 1


def test_a_tool_call_of_chatglm3() -> None:
    output = "track\n ```python\ntool_call(symbol='10111', days=[1, 2])\n```"
    answer, _ = chatglm3_answer(output, TOOLS)
    assert answer == {"name": "track", "parameters": {"symbol": "10111", "days": [1, 2]}}
    answer, _ = chatglm3_answer(output, [{"role": "user", "content": "q"}])
    assert answer == {"name": "track", "content": output.partition("\n")[2]}


@pytest.mark.parametrize(
    "call",
    [
        "tool_call(x=__import__('os').system('touch {path}'))",
        "tool_call(x=open('{path}', 'w'))",
        "__import__('os').system('touch {path}')",
        "tool_call(**{{'a': 1}})",
        "tool_call(1)",
        "other(x=1)",
        "tool_call(x=1",
        "tool_call(x=" + "(" * 5000,
        "",
        "\x00",
    ],
)
def test_a_call_of_anything_but_literals_is_text(call: str, tmp_path: Path) -> None:
    path = tmp_path / "ran"
    call = call.format(path=path)
    assert tool_parameters(call) is None
    answer, _ = chatglm3_answer(f"track\n```python\n{call}\n```", TOOLS)
    assert answer == {"name": "track", "content": f"```python\n{call}\n```"}
    assert not path.exists()
