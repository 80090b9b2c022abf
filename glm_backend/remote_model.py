"""A model on another server that speaks OpenAI's protocol (vLLM, SGLang, Ray Serve, llama.cpp).

The same `Completer` as a model in this process, so the chat does not know the difference. Token
counts before the answer are estimates: the tokenizer is on the other side.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import httpx2

from glm_backend.completion import CompletionEvent, Text, TokenLogprob
from glm_backend.engine.request import Failed, Finished, FinishReason, SamplingParams, Usage
from glm_backend.errors import GLMError, Phrase, UpstreamError
from glm_backend.models.model import Message

_CONNECT_TIMEOUT_S = 10.0
#: The longest silence between two pieces; a long prompt on a busy server is silent for a while.
_READ_TIMEOUT_S = 300.0
_DEFAULT_CONTEXT = 8192
#: Tokens that a chat template adds to a message, rounded up.
_TEMPLATE_TOKENS = 8
_LATIN_CHARACTERS_PER_TOKEN = 3


class RemoteModel:
    """One model of an OpenAI-compatible server.

    `connect` asks the server which models it has; raises UpstreamError when it cannot be reached
    or has none.
    """

    quantization = "remote"
    family = ""

    def __init__(self, client: httpx2.Client, name: str, context_length: int) -> None:
        self._client = client
        self.name = name
        self.context_length = context_length

    @classmethod
    def connect(
        cls, url: str, api_key: str, *, model: str = "", max_context: int = 0
    ) -> RemoteModel:
        """url: up to and including /v1, or the server's root. max_context: tokens, 0 asks."""
        base = url.rstrip("/")
        base = base if base.endswith("/v1") else f"{base}/v1"
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx2.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        client = httpx2.Client(base_url=base, headers=headers, timeout=timeout)
        try:
            response = client.get("/models", timeout=_CONNECT_TIMEOUT_S)
            response.raise_for_status()
            known = {entry["id"]: entry for entry in response.json()["data"]}
            name = model if model in known else next(iter(known))
        except StopIteration:
            client.close()
            raise UpstreamError(host=_host(url), reason=Phrase("it offers no model")) from None
        except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
            client.close()
            raise UpstreamError(host=_host(url), reason=_reason(error)) from error
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
        return RemoteCompletion(self._client, self.name, messages, params)

    def close(self) -> None:
        """Closes the connections; answers under way fail."""
        self._client.close()


class RemoteCompletion:
    """One streamed answer of the other server, which does not say who waits there."""

    place = 0

    def __init__(
        self,
        client: httpx2.Client,
        model: str,
        messages: Sequence[Message],
        params: SamplingParams,
    ) -> None:
        self._client = client
        self._body = _request_body(model, messages, params)
        self._queue: queue.SimpleQueue[CompletionEvent] = queue.SimpleQueue()
        self._started_s = time.perf_counter()
        self._first_s: float | None = None
        self._prompt_tokens = self._cached_tokens = self._tokens = 0
        self._cancelled = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def cancel(self) -> None:
        # The reader may be deep in a silent socket: the end is told now, the reader notices later.
        self._cancelled.set()
        self._queue.put(Finished("cancelled", self._usage()))

    def events(self) -> Iterator[CompletionEvent]:
        while True:
            event = self._queue.get()
            yield event
            if not isinstance(event, Text):
                return

    def _read(self) -> None:
        try:
            self._queue.put(Finished(self._stream(), self._usage()))
        except Exception as error:
            failure: GLMError = UpstreamError(
                host=_host(str(self._client.base_url)), reason=_reason(error)
            )
            self._queue.put(Failed(failure, self._usage()))

    def _stream(self) -> FinishReason:
        reason: FinishReason = "stop"
        with self._client.stream("POST", "/chat/completions", json=self._body) as response:
            if response.is_error:
                response.read()
                response.raise_for_status()
            for line in response.iter_lines():
                if self._cancelled.is_set() or line == "data: [DONE]":
                    break
                if line.startswith("data:"):
                    reason = self._take(json.loads(line[5:]), reason)
        return reason

    def _take(self, chunk: dict[str, object], reason: FinishReason) -> FinishReason:
        """Carries one chunk over; returns the finish reason known so far."""
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self._tokens = int(usage.get("completion_tokens") or self._tokens)
            details = usage.get("prompt_tokens_details") or {}
            self._cached_tokens = int(details.get("cached_tokens") or 0)
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return reason
        text = (choices[0].get("delta") or {}).get("content")
        logprobs = _logprobs(choices[0].get("logprobs"))
        if text or logprobs:
            if self._first_s is None:
                self._first_s = time.perf_counter()
            self._tokens += max(1, len(logprobs))
            self._queue.put(Text(str(text or ""), self._tokens, logprobs))
        return "length" if choices[0].get("finish_reason") == "length" else reason

    def _usage(self) -> Usage:
        first = self._first_s
        return Usage(
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._tokens,
            ttft_s=None if first is None else first - self._started_s,
            duration_s=time.perf_counter() - self._started_s,
            cached_tokens=self._cached_tokens,
        )


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


def _host(url: str) -> str:
    """The host and port of a URL, without a password that may stand in it."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname or url)


def _reason(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return Phrase("status {code}", code=error.response.status_code)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
