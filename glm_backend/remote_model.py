"""A model on another server that speaks OpenAI's protocol (vLLM, SGLang, Ray Serve, llama.cpp).

The same `Completer` as a model in this process, so the chat does not know the difference. Token
counts before the answer are estimates: the tokenizer is on the other side.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx2

from glm_backend.completion import CompletionEvent, Text, TokenLogprob
from glm_backend.engine.request import Failed, Finished, FinishReason, SamplingParams, Usage
from glm_backend.errors import Phrase, UpstreamError
from glm_backend.models.model import Message
from glm_backend.readable import paired, readable

_CONNECT_TIMEOUT_S = 10.0
#: The longest silence between two pieces; a long prompt on a busy server is silent for a while.
_READ_TIMEOUT_S = 300.0
_DEFAULT_CONTEXT = 8192
#: Tokens that a chat template adds to a message, rounded up.
_TEMPLATE_TOKENS = 8
_LATIN_CHARACTERS_PER_TOKEN = 3
#: Of what the other server says went wrong.
_MOST_TOLD = 300
#: What stands around what a model thinks, as models write it that have no field for it.
_THINKING = ("<think>\n", "\n</think>\n\n")


class RemoteModel:
    """One model of an OpenAI-compatible server.

    `connect` asks the server which models it has; raises UpstreamError when it cannot be reached,
    has none, or not the one that is wanted. lost: it has gone, or has this model no more.
    """

    quantization = "remote"
    family = ""

    def __init__(self, client: httpx2.Client, name: str, context_length: int) -> None:
        self._client = client
        self.name = name
        self.context_length = context_length
        self.lost = False

    @classmethod
    def connect(
        cls, url: str, api_key: str, *, model: str = "", max_context: int = 0
    ) -> RemoteModel:
        """url: up to and including /v1, or the server's root. model: "" takes its first.
        max_context: tokens, 0 asks."""
        base = url.rstrip("/")
        base = base if base.endswith("/v1") else f"{base}/v1"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        # A connection for each answer, so that an answer can be hung up on by itself.
        limits = httpx2.Limits(max_keepalive_connections=0)
        try:
            client = httpx2.Client(base_url=base, headers=headers, timeout=timeout, limits=limits)
        except httpx2.InvalidURL as error:
            raise UpstreamError(host=host_of(url), reason=_reason(error)) from error
        try:
            response = client.get("/models", timeout=_CONNECT_TIMEOUT_S)
            response.raise_for_status()
            known = {entry["id"]: entry for entry in response.json()["data"]}
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            client.close()
            raise UpstreamError(host=host_of(url), reason=_reason(error)) from error
        name = model or next(iter(known), "")
        if name not in known:
            client.close()
            raise UpstreamError(host=host_of(url), reason=_not_there(name, list(known)))
        offered = known[name].get("max_model_len")
        context = max_context or (offered if isinstance(offered, int) else _DEFAULT_CONTEXT)
        return cls(client, name, context)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate on the high side: a token a wide character, a third for the others."""
        return sum(_TEMPLATE_TOKENS + _estimated_tokens(m["content"]) for m in messages)

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> RemoteCompletion:
        """Starts an answer; what goes wrong comes as its Failed event.

        The other server has its own line, and is not told who asks.
        """
        return RemoteCompletion(self, self._client, messages, params)

    def close(self) -> None:
        """Closes the connections; answers under way fail."""
        self._client.close()


class RemoteCompletion:
    """One streamed answer of the other server, which does not say who waits there."""

    place = 0

    def __init__(
        self,
        model: RemoteModel,
        client: httpx2.Client,
        messages: Sequence[Message],
        params: SamplingParams,
    ) -> None:
        self._model, self._client = model, client
        self._body = _request_body(model.name, messages, params)
        self._queue: queue.SimpleQueue[CompletionEvent] = queue.SimpleQueue()
        self._started_s = time.perf_counter()
        self._first_s: float | None = None
        self._prompt_tokens = self._cached_tokens = self._tokens = 0
        self._thinking, self._half = False, ""
        self._cancelled = threading.Event()
        self._connection: socket.socket | None = None
        threading.Thread(target=self._read, daemon=True).start()

    def cancel(self) -> None:
        # The reader may be deep in a silent socket, and the other server at work for nobody.
        self._cancelled.set()
        self._queue.put(Finished("cancelled", self._usage()))
        self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(OSError):  # it is closed already
                self._connection.shutdown(socket.SHUT_RDWR)

    def _watch(self, event: str, told: Mapping[str, Any]) -> None:
        """Learns of the request's connection, which is there before anything is answered."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._connection = told["return_value"].get_extra_info("socket")
            if self._cancelled.is_set():
                self._hang_up()

    def events(self) -> Iterator[CompletionEvent]:
        while True:
            event = self._queue.get()
            yield event
            if not isinstance(event, Text):
                return

    def _read(self) -> None:
        end: Finished | Failed
        try:
            end = Finished(self._stream(), self._usage())
        except Exception as error:
            self._model.lost |= isinstance(error, httpx2.ConnectError)
            host = host_of(str(self._client.base_url))
            end = Failed(UpstreamError(host=host, reason=_reason(error)), self._usage())
        if not self._cancelled.is_set():  # else that is the end
            self._queue.put(end)

    def _stream(self) -> FinishReason:
        reason: FinishReason | None = None
        with self._client.stream(
            "POST", "/chat/completions", json=self._body, extensions={"trace": self._watch}
        ) as response:
            if response.is_error:
                self._model.lost |= response.status_code == httpx2.codes.NOT_FOUND
                raise _BrokenOff(_why(response.status_code, response.read()))
            for said in _events(response.iter_bytes()):
                if said == b"[DONE]" or self._cancelled.is_set():
                    return reason or "stop"
                reason = self._take(json.loads(said)) or reason
        if reason is None:
            raise _BrokenOff(Phrase("it broke off in the middle of the answer"))
        return reason

    def _take(self, chunk: dict[str, object]) -> FinishReason | None:
        """Carries one chunk over; returns the finish reason if it has one."""
        if error := chunk.get("error"):
            raise _BrokenOff(_told(error))
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self._tokens = int(usage.get("completion_tokens") or self._tokens)
            details = usage.get("prompt_tokens_details") or {}
            self._cached_tokens = int(details.get("cached_tokens") or 0)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return None
        text = self._said(choices[0].get("delta") or {})
        logprobs = _logprobs(choices[0].get("logprobs"))
        if text or logprobs:
            if self._first_s is None:
                self._first_s = time.perf_counter()
            self._tokens += max(1, len(logprobs))
            self._queue.put(Text(text, self._tokens, logprobs))
        ended = choices[0].get("finish_reason")
        return ("length" if ended == "length" else "stop") if ended else None

    def _said(self, delta: Mapping[str, object]) -> str:
        """The text of a piece, with what a reasoning model thinks before it between tags.

        Servers that take that out of the text give it a field of its own, under one of two names.
        """
        thought = str(delta.get("reasoning_content") or delta.get("reasoning") or "")
        text = str(delta.get("content") or "")
        if thought and not self._thinking:
            thought = _THINKING[0] + thought
        elif text and self._thinking and not thought:
            text = _THINKING[1] + text
        self._thinking = bool(thought) or (self._thinking and not text)
        # Half a character may come with one piece, and the other half with the next.
        said = self._half + thought + text
        self._half = said[-1:] if "\ud800" <= said[-1:] <= "\udbff" else ""
        return paired(said.removesuffix(self._half))

    def _usage(self) -> Usage:
        first = self._first_s
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._tokens,
            ttft_s=None if first is None else first - self._started_s,
            duration_s=time.perf_counter() - self._started_s,
            cached_tokens=self._cached_tokens,
        )


class _BrokenOff(Exception):
    """The other server gave up an answer that it had begun."""


def _events(stream: Iterator[bytes]) -> Iterator[bytes]:
    """What server-sent events say. Lines end with line feeds: JSON may hold what else ends one."""
    rest = b""
    for part in stream:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:") and (said := line[5:].strip()):
                yield said


def _not_there(model: str, known: Sequence[str]) -> str:
    if not known:
        return Phrase("it offers no model")
    return Phrase("it offers {names}, not {model}", names=", ".join(known[:20]), model=model)


def _why(status: int, body: bytes) -> str:
    """What an answer that is an error says."""
    try:
        told = _told(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return Phrase("status {code}", code=status)
    return Phrase("status {code}: {told}", code=status, told=told)


def _told(error: object) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return readable(str(message))[:_MOST_TOLD]


def _request_body(
    model: str, messages: Sequence[Message], params: SamplingParams
) -> dict[str, object]:
    """OpenAI's fields; those it does not have as vLLM and SGLang name them, when used."""
    body: dict[str, object] = {
        "model": model,
        "messages": list(messages),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_new_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if messages[-1]["role"] == "assistant":  # the beginning of the answer, to be carried on
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if params.seed is not None:
        body["seed"] = params.seed
    if params.stop:
        body["stop"] = list(params.stop)
    if params.top_k:
        body["top_k"] = params.top_k
    if params.min_p:
        body["min_p"] = params.min_p
    if params.typical_p != 1:
        body["typical_p"] = params.typical_p
    if params.repetition_penalty != 1:
        body["repetition_penalty"] = params.repetition_penalty
    if params.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": params.logprobs}
    return body


def _logprobs(said: object) -> tuple[TokenLogprob, ...]:
    """The log probabilities of a chunk, in OpenAI's form; none where the server tells none."""
    tokens = said.get("content") if isinstance(said, dict) else None
    return tuple(
        TokenLogprob(
            str(token["token"]),
            float(token["logprob"]),
            tuple((str(o["token"]), float(o["logprob"])) for o in token.get("top_logprobs") or ()),
        )
        for token in tokens or ()
    )


def _estimated_tokens(text: str) -> int:
    wide = sum(ord(character) > 0x2E7F for character in text)
    return wide + -(-(len(text) - wide) // _LATIN_CHARACTERS_PER_TOKEN)


def host_of(url: str) -> str:
    """The host and port of a URL, without a password that may stand in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # no port, or half a bracket
        return url.rpartition("@")[2]
    return f"{parts.hostname}:{port}" if port else str(parts.hostname or url)


def _reason(error: Exception) -> str:
    if isinstance(error, _BrokenOff):
        reason: str = error.args[0]
        return reason
    if isinstance(error, httpx2.HTTPStatusError):
        return _why(error.response.status_code, error.response.content)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
