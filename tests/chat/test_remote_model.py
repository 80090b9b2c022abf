"""Answers from another server, against a real HTTP server that speaks OpenAI's protocol."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from glm_backend import remote_model
from glm_backend.completion import Text, TokenLogprob
from glm_backend.engine.request import Failed, Finished, SamplingParams, Usage
from glm_backend.errors import UpstreamError
from glm_backend.remote_model import RemoteModel
from glm_backend.services import Services
from glm_backend.settings import Settings

WORDS = ["Bon", "jour", " 你", "好"]


class Upstream(ThreadingHTTPServer):
    """What tests may turn: the models on offer, how an answer goes wrong, and when it goes on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: list[dict[str, object]] = [{"id": "glm", "max_model_len": 4096}]
        self.fault = ""
        self.status = 500
        self.finish_reason = "stop"
        self.deltas: list[dict[str, object]] = [{"content": word} for word in WORDS]
        self.ascii_only = False
        self.logprobs: dict[str, object] | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.left_alone = threading.Event()
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some of these tests are about."""


class Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["Authorization"])
        self._json({"data": self.server.models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        if self.server.fault == "silent":
            if self.rfile.read(1) == b"":
                self.server.left_alone.set()
            return
        if self.server.fault == "status":
            self.send_error(self.server.status)
            return
        if self.server.fault.startswith("{"):
            self._json(json.loads(self.server.fault), 400)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for i, delta in enumerate(self.server.deltas):
            choice = {"delta": delta, "finish_reason": None}
            self._event({"choices": [choice | {"logprobs": self.server.logprobs}]})
            if i == 1 and self.server.fault == "cut":
                self.wfile.write(b"data: {half\n\n")
                return
            if i == 1 and self.server.fault == "gone":
                return
            if i == 1 and self.server.fault == "error":
                self._event({"error": {"message": "CUDA out of memory", "code": 500}})
                return
            self.server.go_on.wait(10)
        self._event({"choices": [{"delta": {}, "finish_reason": self.server.finish_reason}]})
        usage = {"prompt_tokens": 7, "completion_tokens": 4}
        details = {"prompt_tokens_details": {"cached_tokens": 5}}
        self._event({"choices": [], "usage": usage | details})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: object) -> None:
        # As servers do that write characters as they are.
        said = json.dumps(data, ensure_ascii=self.server.ascii_only)
        self.wfile.write(f"data: {said}\n\n".encode())
        self.wfile.flush()

    def _json(self, data: object, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def model(upstream: Upstream) -> Iterator[RemoteModel]:
    model = RemoteModel.connect(upstream.url, "sk-1")
    yield model
    model.close()


def answer_of(model: RemoteModel, **params: Any) -> tuple[str, Finished | Failed]:
    completion = model.complete([{"role": "user", "content": "hi"}], SamplingParams(**params))
    *pieces, end = list(completion.events())
    assert not isinstance(end, Text)
    return "".join(piece.text for piece in pieces if isinstance(piece, Text)), end


def test_the_server_is_asked_for_its_model_and_context(
    model: RemoteModel, upstream: Upstream
) -> None:
    assert (model.name, model.context_length) == ("glm", 4096)
    assert upstream.keys == ["Bearer sk-1"]


def test_an_answer_streams_with_its_usage(model: RemoteModel, upstream: Upstream) -> None:
    text, end = answer_of(model, temperature=0.5, seed=3, top_k=9, stop=("x",), max_new_tokens=50)
    assert text == "Bonjour 你好"
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.prompt_tokens, end.usage.completion_tokens) == ("stop", 7, 4)
    sent = upstream.requests[0]
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert (sent["temperature"], sent["seed"], sent["top_k"]) == (0.5, 3, 9)
    assert (sent["stop"], sent["max_tokens"], sent["stream"]) == (["x"], 50, True)
    assert not {"min_p", "typical_p", "repetition_penalty", "logprobs"} & sent.keys()
    answer_of(model, min_p=0.1, typical_p=0.9)
    assert (upstream.requests[1]["min_p"], upstream.requests[1]["typical_p"]) == (0.1, 0.9)


def test_log_probabilities_and_cached_tokens_are_passed_on(
    model: RemoteModel, upstream: Upstream
) -> None:
    other = {"token": "Hi", "logprob": -2, "bytes": None}
    told = {"token": "Bon", "logprob": -0.25, "bytes": [1], "top_logprobs": [other]}
    upstream.logprobs = {"content": [told]}
    completion = model.complete(
        [{"role": "user", "content": "hi"}], SamplingParams(logprobs=1), client="ann"
    )
    events = list(completion.events())
    assert upstream.requests[0]["logprobs"] is True
    assert upstream.requests[0]["top_logprobs"] == 1
    assert "ann" not in str(upstream.requests[0])
    first = events[0]
    assert isinstance(first, Text)
    assert first.logprobs == (TokenLogprob("Bon", -0.25, (("Hi", -2.0),)),)
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.usage.cached_tokens == 5


def test_an_answer_is_carried_on_where_its_server_can_do_it(
    model: RemoteModel, upstream: Upstream
) -> None:
    asked = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hel"}]
    list(model.complete(asked, SamplingParams()).events())  # type: ignore[arg-type]
    (body,) = upstream.requests
    assert body["messages"] == asked
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


def test_an_answer_cut_by_its_length_says_so(model: RemoteModel, upstream: Upstream) -> None:
    upstream.finish_reason = "length"
    assert answer_of(model)[1].reason == "length"


@pytest.mark.parametrize("fault", ["status", "cut"])
def test_a_server_that_fails_ends_the_answer_with_the_reason(
    model: RemoteModel, upstream: Upstream, fault: str
) -> None:
    upstream.fault = fault
    _, end = answer_of(model)
    assert isinstance(end, Failed)
    assert isinstance(end.error, UpstreamError)
    assert "127.0.0.1" in str(end.error)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("error", "CUDA out of memory"),
        ("gone", "it broke off in the middle of the answer"),
        ('{"error": {"message": "maximum context length is 4096\\u0000"}}', "length is 4096␀"),
        ('{"error": "no such field: top_k"}', "status 400: no such field: top_k"),
        ('{"detail": "what"}', "status 400"),
    ],
)
def test_what_the_server_says_went_wrong_is_told(
    model: RemoteModel, upstream: Upstream, fault: str, reason: str
) -> None:
    upstream.fault = fault
    text, end = answer_of(model)
    assert isinstance(end, Failed)
    assert reason in str(end.error)
    assert text == ("" if fault.startswith("{") else "Bonjour")  # what came before is kept


LINE_ENDS = "a\u2028b\u2029c\x85d\x0be\x1cf"


def test_every_character_comes_through(model: RemoteModel, upstream: Upstream) -> None:
    upstream.deltas = [{"content": LINE_ENDS}, {"content": None}, {"content": "!"}]
    assert answer_of(model)[0] == f"{LINE_ENDS}!"


def test_halves_of_a_character_are_put_together(model: RemoteModel, upstream: Upstream) -> None:
    upstream.ascii_only = True
    upstream.deltas = [
        {"content": part} for part in ("a\ud83d", "\ude00b", "\ud83d", "c", "\ude00")
    ]
    assert answer_of(model)[0] == "a😀b\ufffdc\ufffd"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_model_thinks_before_it_answers_is_shown(
    model: RemoteModel, upstream: Upstream, name: str
) -> None:
    upstream.deltas = [{name: "Hm, "}, {name: "I see."}, {"content": "Yes"}, {"content": "."}]
    assert answer_of(model)[0] == "<think>\nHm, I see.\n</think>\n\nYes."
    upstream.deltas, upstream.finish_reason = [{name: "Hm"}], "length"
    assert answer_of(model)[0] == "<think>\nHm"


def test_stop_does_not_wait_for_a_silent_server(model: RemoteModel, upstream: Upstream) -> None:
    upstream.go_on.clear()
    completion = model.complete([{"role": "user", "content": "hi"}], SamplingParams())
    events = completion.events()
    assert next(events).text == "Bon"
    completion.cancel()
    assert next(events).reason == "cancelled"


def test_an_answer_given_up_before_its_first_word_is_hung_up_on(
    model: RemoteModel, upstream: Upstream
) -> None:
    upstream.fault = "silent"
    completion = model.complete([{"role": "user", "content": "hi"}], SamplingParams())
    while not upstream.requests:
        time.sleep(0.01)
    completion.cancel()
    assert upstream.left_alone.wait(10)
    (end,) = completion.events()
    assert end.reason == "cancelled"
    upstream.fault = ""
    assert answer_of(model)[0] == "Bonjour 你好"  # others go on


def test_a_stopped_answer_never_ends_as_a_whole_one(
    model: RemoteModel, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.go_on.clear()
    completion = model.complete([{"role": "user", "content": "hi"}], SamplingParams())
    events = completion.events()
    assert next(events).text == "Bon"
    usage, (reader,) = completion._usage, [t for t in threading.enumerate() if "_read" in t.name]

    def after_the_reader() -> Usage:
        if threading.current_thread() is not reader:  # between the mark of Stop and its end
            upstream.go_on.set()
            reader.join(10)
        return usage()

    monkeypatch.setattr(completion, "_usage", after_the_reader)
    completion.cancel()
    assert [event.reason for event in events if not isinstance(event, Text)] == ["cancelled"]


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(UpstreamError, match=r"127\.0\.0\.1:9"):
        RemoteModel.connect("http://127.0.0.1:9", "")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://me:pw@host:abc/v1", "host:abc/v1"),
        ("http://[::1", "http://[::1"),
        ("http://999.1.1.1/v1", "999.1.1.1"),
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(url: str, host: str) -> None:
    assert remote_model.host_of(url) == host
    with pytest.raises(UpstreamError, match="Invalid"):
        RemoteModel.connect(url, "")


def test_a_server_without_models_is_refused(upstream: Upstream) -> None:
    upstream.models = []
    with pytest.raises(UpstreamError, match="no model"):
        RemoteModel.connect(upstream.url, "")


def test_a_model_that_is_not_offered_is_not_replaced_by_another(upstream: Upstream) -> None:
    with pytest.raises(UpstreamError, match="it offers glm, not gml"):
        RemoteModel.connect(upstream.url, "", model="gml")


def test_a_server_with_another_model_is_asked_again(upstream: Upstream, tmp_path: Path) -> None:
    services = Services(Settings(data_dir=tmp_path, upstream_url=upstream.url))
    assert services.model().name == "glm"
    upstream.models = [{"id": "other"}]
    assert services.model().name == "glm"  # nobody has noticed yet
    upstream.fault = "status"
    upstream.status = 404
    list(services.model().complete([{"role": "user", "content": "hi"}], SamplingParams()).events())
    assert services.model().name == "other"
    services.close()


def test_nobody_waits_in_turn_for_a_server_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_model, "_CONNECT_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        services = Services(Settings(data_dir=tmp_path, upstream_url=url))
        connect, tries = RemoteModel.connect, []

        def counted(*given: Any, **named: Any) -> RemoteModel:
            tries.append(given)
            return connect(*given, **named)

        monkeypatch.setattr(RemoteModel, "connect", counted)
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(services.model) for _ in range(5)]
            told = {str(one.exception()) for one in asked}
        assert len(tries) == len(told) == 1
        services._refused_until_s = time.monotonic()
        with pytest.raises(UpstreamError):  # later it is asked again
            services.model()
        assert len(tries) == 2
        services.close()


def test_the_dashboard_chats_through_another_server(upstream: Upstream, tmp_path: Path) -> None:
    services = Services(Settings(data_dir=tmp_path, upstream_url=upstream.url))
    conversation = services.store.create_conversation(services.user_id).id
    answer = services.chat.send(services.user_id, conversation, "hi")
    assert answer.wait_saved(10)
    kept = services.store.path(services.user_id, conversation)[-1]
    assert (kept.content, kept.model, kept.quantization) == ("Bonjour 你好", "glm", "remote")
    services.close()


def test_wide_characters_count_as_a_token_each(model: RemoteModel) -> None:
    chinese = model.count_tokens([{"role": "user", "content": "你好" * 50}])
    latin = model.count_tokens([{"role": "user", "content": "ab" * 50}])
    assert chinese > 100 > latin
