"""/v1 in OpenAI's form on a fake model: answers, refusals, hanging up."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, cast

import httpx2
import pytest
from starlette.testclient import TestClient

from glm_backend.api.server import make_app
from glm_backend.engine.request import SamplingParams
from glm_backend.errors import EngineBusy, UpstreamError
from glm_backend.models.manager import ModelStatus
from glm_backend.models.model import Message
from glm_backend.services import Services
from glm_backend.testing import FakeCompletion, FakeModel
from tests.fakes import FakeModels
from tests.forms.parrot import Parrot, ask, events_in
from tests.forms.servers import served


def test_an_answer_in_one_piece(client: TestClient, parrot: Parrot) -> None:
    answer = ask(
        client,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.02,
        typical_p=0.9,
        repetition_penalty=1.1,
        seed=3,
    )
    values = answer.json()
    assert values["id"].startswith("chatcmpl-")
    assert isinstance(values["created"], int)
    assert values["model"] == "m"
    assert values["object"] == "chat.completion"
    assert values["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "回答：你好"},
            "finish_reason": "stop",
        }
    ]
    assert values["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    params = parrot.asked[0][1]
    assert (params.temperature, params.top_p, params.top_k) == (0.5, 0.9, 7)
    assert (params.min_p, params.typical_p) == (0.02, 0.9)
    assert (params.repetition_penalty, params.seed, params.logprobs) == (1.1, 3, None)


def test_an_answer_as_events(client: TestClient) -> None:
    answer = ask(client, stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, usage = events_in(answer.text)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant"},
        {"content": "回答："},
        {"content": "你好"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert {chunk["usage"] for chunk in chunks} == {None}
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 4
    assert "usage" not in events_in(ask(client, stream=True).text)[0]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_limit_of_an_answer(client: TestClient, parrot: Parrot, name: str) -> None:
    answer = ask(client, **{name: 1})
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["choices"][0]["message"]["content"] == "回答："
    ask(client, **{name: 10**9})
    assert parrot.asked[-1][1].max_new_tokens == parrot.context_length - 2


def test_stop_is_one_text_or_several(client: TestClient, parrot: Parrot) -> None:
    ask(client, stop="。")
    ask(client, stop=["a", "b"])
    ask(client, stop=None)
    assert [params.stop for _, params in parrot.asked] == [("。",), ("a", "b"), ()]


def test_content_in_parts_and_the_newer_word_for_system(client: TestClient, parrot: Parrot) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    ask(
        client,
        messages=[{"role": "developer", "content": "S"}, {"role": "user", "content": parts}],
    )
    assert list(parrot.asked[0][0]) == [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "ab"},
    ]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": None}, 422, "model"),
        ({"messages": []}, 422, "messages"),
        ({"messages": "hi"}, 422, "messages"),
        ({"messages": ["hi"]}, 422, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 422, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, 422, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422,
         "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": "b"}]}, 400, None),
        ({"n": 2}, 422, "n"),
        ({"min_p": 2}, 422, "min_p"),
        ({"typical_p": 0}, 422, "typical_p"),
        ({"logprobs": 5}, 422, "logprobs"),
        ({"top_logprobs": 3}, 422, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 422, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": True}, 422, "top_logprobs"),
        ({"user": 7}, 422, "user"),
        ({"tools": [{"type": "function"}]}, 422, "tools"),
        ({"temperature": 3}, 422, "temperature"),
        ({"temperature": "hot"}, 422, "temperature"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"max_tokens": True}, 422, "max_tokens"),
        ({"stop": 5}, 422, "stop"),
        ({"stop": [""]}, 422, "stop"),
        ({"stream": "yes"}, 422, "stream"),
        ({"stream_options": {"include_usage": True}}, 422, "stream_options"),
        ({"seed": 2**2000}, 422, "a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_openais_form(
    client: TestClient, fields: dict[str, object], status: int, param: str | None
) -> None:
    answer = ask(client, **fields)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert error["param"] == param
    assert answer.json()["detail"]


def told(text: str) -> dict[str, Any]:
    return {"token": text, "logprob": math.log(0.5), "bytes": list(text.encode())}


def test_log_probabilities_are_told_on_request(client: TestClient) -> None:
    (choice,) = ask(client, logprobs=True, top_logprobs=2).json()["choices"]
    expected = [{**told(text), "top_logprobs": [told(text)]} for text in ("回答：", "你好")]
    assert choice["logprobs"] == {"content": expected, "refusal": None}
    events = events_in(ask(client, logprobs=True, top_logprobs=2, stream=True).text)
    streamed = [event["choices"][0]["logprobs"]["content"] for event in events]
    assert [entry for content in streamed for entry in content] == expected
    (choice,) = ask(client, logprobs=True).json()["choices"]
    assert [entry["top_logprobs"] for entry in choice["logprobs"]["content"]] == [[], []]
    assert "logprobs" not in ask(client, logprobs=False, top_logprobs=0).json()["choices"][0]


def test_clients_take_turns_by_their_address_and_the_user_they_name(
    services: Services, parrot: Parrot
) -> None:
    app = make_app(lambda: services)
    one, other = (TestClient(app, client=(f"10.0.0.{n}", 5000)) for n in (1, 2))
    ask(one)
    one.post("/", json={"prompt": "x"})
    ask(one, user="Ann")
    ask(other, user="Ann")
    assert parrot.clients == ["10.0.0.1 ", "10.0.0.1 ", "10.0.0.1 Ann", "10.0.0.2 Ann"]


def test_a_full_line_is_429_with_the_place_and_when_to_ask_again(
    client: TestClient, parrot: Parrot
) -> None:
    parrot.refuse = EngineBusy(waiting=64, place=65)
    for answer in (ask(client), ask(client, stream=True), client.post("/", json={"prompt": "x"})):
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        error = answer.json()["error"]
        assert (error["code"], error["waiting"], error["place"]) == ("EngineBusy", 64, 65)
        assert "64 requests" in error["message"]


def test_no_model_is_503(client: TestClient, services: Services) -> None:
    assert client.get("/v1/models").json()["data"][0]["id"] == "smollm2-135m"
    services.models.unload()
    assert client.get("/v1/models").json() == {"object": "list", "data": []}
    assert ask(client).status_code == 503
    assert client.post("/", json={"prompt": "x"}).status_code == 503
    assert "retry-after" not in ask(client).headers


def test_a_model_that_is_being_loaded_is_503_and_worth_asking_again(
    client: TestClient, services: Services
) -> None:
    cast(FakeModels, services.models).present = ModelStatus(state="loading")
    answer = ask(client)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "ModelLoading"


def test_an_answer_that_fails_says_so(client: TestClient, parrot: Parrot) -> None:
    parrot.error = UpstreamError(host="fake", reason="as asked")
    answer = ask(client)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")
    *_, last = events_in(ask(client, stream=True).text)
    assert last["error"]["code"] == "UpstreamError"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("delay_s", [0.0, 60.0])
def test_hanging_up_ends_the_answer(
    services: Services, stream: bool, delay_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled = threading.Event()
    asked = threading.Event()
    slow = FakeModel(["word "] * 1000, pause_s=0.02, delay_s=delay_s)
    start = slow.complete

    def watched(
        messages: Sequence[Message], params: SamplingParams, *, client: str
    ) -> FakeCompletion:
        completion = start(messages, params)
        cancel = completion.cancel
        monkeypatch.setattr(completion, "cancel", lambda: (cancelled.set(), cancel()))
        asked.set()
        return completion

    monkeypatch.setattr(slow, "complete", watched)
    monkeypatch.setattr(services.models, "model", slow)
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    with served(make_app(lambda: services)) as address:

        def hang_up_soon() -> None:
            with httpx2.Client(timeout=0.3) as impatient:
                try:
                    with impatient.stream(
                        "POST", f"{address}/v1/chat/completions", json=body
                    ) as answer:
                        next(answer.iter_bytes())
                except httpx2.TimeoutException:
                    pass

        hang_up_soon()
        assert asked.wait(10)
        assert cancelled.wait(10)
