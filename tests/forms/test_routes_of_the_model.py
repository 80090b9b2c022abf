"""POST / and /v1 on a fake model: the recorded forms, bad input, hanging up."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from glm_backend.api.openai import openai_routes
from glm_backend.api.original import original_route
from glm_backend.api.security import require_loopback
from glm_backend.api.server import make_app
from glm_backend.engine.request import SamplingParams
from glm_backend.errors import EngineBusy, UpstreamError
from glm_backend.models.model import Message
from glm_backend.services import Services
from glm_backend.testing import FakeCompletion, FakeModel
from tests.fakes import fake_services
from tests.forms.servers import served

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "forms_golden.json"


@dataclass
class Parrot(FakeModel):
    """Answers as the stub of the recorded forms: "回答：" and the question.

    recorded_stream: as that stub did when it streamed.
    """

    context_length: int = 10_000
    recorded_stream: bool = False

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> FakeCompletion:
        if self.refuse is not None:
            raise self.refuse
        self.asked.append((messages, params))
        self.clients.append(client)
        words = ["回答：", query := messages[-1]["content"]]
        if self.recorded_stream:
            words = ["你好", "👋 ", f"{query}\n第二行"]
        return FakeModel(words, self.pause_s, error=self.error).complete(messages, params)


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def services(tmp_path: Path, parrot: Parrot) -> Iterator[Services]:
    opened = fake_services(tmp_path / "data", parrot)
    yield opened
    opened.close()


@pytest.fixture
def client(services: Services) -> TestClient:
    return TestClient(make_app(lambda: services), raise_server_exceptions=False)


def ask(client: TestClient, **fields: object) -> httpx2.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "你好"}], **fields}
    return client.post("/v1/chat/completions", json=body)


def events_in(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


# --- the original form


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


# --- OpenAI's form


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


# --- who may ask, and what else there is


def test_beside_the_pages_only_this_machine_may_ask(services: Services) -> None:
    routes = [
        original_route(lambda: services, guard=require_loopback),
        openai_routes(lambda: services, guard=require_loopback),
    ]
    app = Starlette(routes=routes)
    near = TestClient(app, base_url="http://127.0.0.1:8501", client=("127.0.0.1", 5000))
    far = TestClient(app, base_url="http://127.0.0.1:8501", client=("192.168.1.7", 5000))
    for client, status in ((near, 200), (far, 403)):
        assert client.get("/v1/models").status_code == status
        assert ask(client).status_code == status
        assert client.post("/", json={"prompt": "x"}).status_code == status
    assert near.options("/v1/models").status_code == 405


def test_paths_and_methods_that_do_not_exist(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 405
    assert answer.json()["detail"] == "Method Not Allowed"
    assert client.get("/nothing").json()["error"]["code"] == 404
    assert client.get("/docs").headers["content-type"].startswith("text/html")
    assert client.get("/health").status_code == 200


def test_an_answer_does_not_take_the_threads_of_the_others(services: Services) -> None:
    slow = FakeModel(["word "] * 3, delay_s=0.5)
    services.models.model = slow  # type: ignore[attr-defined]
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    with served(make_app(lambda: services)) as address, httpx2.Client(timeout=30) as client:
        statuses: list[int] = []

        def one() -> None:
            answer = httpx2.post(f"{address}/v1/chat/completions", json=body, timeout=30)
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=one) for _ in range(45)]
        for thread in threads:
            thread.start()
        assert client.get(f"{address}/ready").status_code == 200
        for thread in threads:
            thread.join()
    assert statuses == [200] * 45


# --- the recorded forms, where they are at hand


def recorded(form: str) -> list[Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))[form] if GOLDEN.is_file() else []


@pytest.mark.parametrize("record", recorded("api.py"), ids=lambda r: json.dumps(r["request"]))
def test_recorded_requests_of_the_original_api(client: TestClient, record: Any) -> None:
    body = record["request"]
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    answer = client.request(record["method"], record["url"], content=content)
    if record["status"] == 500:
        assert answer.status_code == 422
        return
    assert answer.status_code == record["status"]
    if record["status"] == 200 and record["url"] == "/":
        values = answer.json()
        assert time.strptime(values["time"], "%Y-%m-%d %H:%M:%S")
        assert values | {"time": record["body"]["time"]} == record["body"]


@pytest.mark.parametrize(
    "record",
    [r for r in recorded("openai_api.py") if r["method"] == "POST"],
    ids=lambda r: json.dumps(r["request"]),
)
def test_recorded_requests_of_the_original_openai_api(
    services: Services, parrot: Parrot, record: Any
) -> None:
    parrot.family = "chatglm2"
    parrot.recorded_stream = bool(record["request"].get("stream"))
    client = TestClient(make_app(lambda: services), raise_server_exceptions=False)
    answer = client.post(record["url"], json=record["request"])
    assert answer.status_code == {500: 422}.get(record["status"], record["status"])
    if record["status"] != 200:
        assert answer.json()["detail"]
        return
    if record["request"].get("stream"):
        assert answer.headers["content-type"] == record["content_type"]
        theirs, ours = events_in(record["body"]), events_in(answer.text)
        assert [chunk["choices"] for chunk in ours] == [chunk["choices"] for chunk in theirs]
        assert set(theirs[0]) <= set(ours[0])
        return
    values = answer.json()
    assert set(record["body"]) <= set(values)
    assert values["model"] == record["body"]["model"]
    (theirs,), (ours,) = record["body"]["choices"], values["choices"]
    assert ours.pop("index") == theirs.pop("index")
    assert ours == theirs


def test_the_recorded_preflight(client: TestClient) -> None:
    asked = {"Origin": "http://x", "Access-Control-Request-Method": "POST"}
    headers = client.options("/v1/chat/completions", headers=asked).headers
    assert headers["access-control-allow-origin"] == "http://x"
    assert headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert headers["access-control-max-age"] == "600"
