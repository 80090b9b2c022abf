"""POST /, as api.py had it, on a fake model."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from tests.forms.parrot import Parrot, ask


def test_the_original_form(client: TestClient, parrot: Parrot) -> None:
    answer = client.post("/", json={"prompt": "再来", "history": [["你好", "好"]]})
    assert answer.status_code == 200
    values = answer.json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", values.pop("time"))
    assert values == {
        "response": "回答：再来",
        "history": [["你好", "好"], ["再来", "回答：再来"]],
        "status": 200,
    }
    messages, params = parrot.asked[0]
    assert [m["role"] for m in messages] == ["user", "assistant", "user"]
    assert (params.top_p, params.temperature) == (0.7, 0.95)
    assert params.max_new_tokens == 2048 - parrot.count_tokens(messages)


def test_max_length_counts_prompt_and_answer(client: TestClient, parrot: Parrot) -> None:
    client.post("/", json={"prompt": "a b c", "max_length": 10})
    assert parrot.asked[0][1].max_new_tokens == 6
    answer = client.post("/", json={"prompt": "a b c", "max_length": 4})
    assert answer.status_code == 422
    assert "more than the 4 tokens" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "body"),
        (b"not json", "body"),
        (b"[" * 100_000, "body"),
        (b"[]", "body"),
        (b"{}", "prompt"),
        (b'{"history": []}', "prompt"),
        (b'{"prompt": 1}', "prompt"),
        (b'{"prompt": "x", "history": {}}', "history"),
        (b'{"prompt": "x", "history": [["only"]]}', "history"),
        (b'{"prompt": "x", "history": [["a", null]]}', "history"),
        (b'{"prompt": "x", "max_length": -1}', "max_length"),
        (b'{"prompt": "x", "max_length": "long"}', "max_length"),
        (b'{"prompt": "x", "top_p": 1.5}', "top_p"),
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"prompt": "x", "temperature": 1' + b"0" * 400 + b"}", "number"),
    ],
)
def test_bad_input_is_422_with_the_reason(client: TestClient, body: bytes, named: str) -> None:
    answer = client.post("/", content=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "InvalidParameter"
    assert named in answer.json()["error"]["message"]


def test_half_a_character_in_a_prompt_is_replaced(client: TestClient) -> None:
    answer = client.post("/", content=rb'{"prompt": "a\ud83db"}')
    assert answer.json()["response"] == "回答：a?b"


def test_a_question_longer_than_the_context_is_refused(client: TestClient) -> None:
    question = "word " * 10_000
    assert client.post("/", json={"prompt": question}).status_code == 413
    answer = ask(client, messages=[{"role": "user", "content": question}])
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "ContextOverflow")


def test_a_body_without_end_is_refused(client: TestClient) -> None:
    answer = client.post("/", content=b'{"prompt": "' + b"x" * (17 * 2**20))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "MessageTooLong")
