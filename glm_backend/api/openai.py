"""GET /v1/models and POST /v1/chat/completions, as OpenAI's clients know them.

Any model name is taken and said back: there is one model, and clients insist on sending names of
their own. What is asked for and cannot be done (several answers, tools) is refused, not ignored.
"""

from __future__ import annotations

import functools
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from glm_backend.api.answering import (
    Guard,
    Open,
    WholeAnswer,
    clean_text,
    client_of,
    completed,
    events_of,
    json_object,
    prompt_and_room,
    sampling,
    whole_answer,
)
from glm_backend.api.answers import Endpoint, answers_errors, error_values
from glm_backend.completion import Completion, Text, TokenLogprob
from glm_backend.engine.request import LIMITS, Usage
from glm_backend.errors import (
    GLMError,
    InvalidParameter,
    ModelNotReady,
    NoQuestion,
)
from glm_backend.models.catalog import CATALOG
from glm_backend.models.chatglm_prompts import as_the_original_api
from glm_backend.models.model import Message
from glm_backend.services import Services

_STARTED_S = int(time.time())
#: "developer" is OpenAI's newer word for "system".
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
#: Answers of clients that name no limit end here at the latest: the originals' max_length.
_DEFAULT_MAX_TOKENS = 8192
#: OpenAI's number for what can hardly be: JSON has no infinity.
_LEAST_LOGPROB = -9999.0
#: Fields that are parameters as they are; those that OpenAI does not have as vLLM names them.
_NUMBERS = (
    "temperature", "top_p", "top_k", "min_p", "typical_p", "repetition_penalty", "seed",
)  # fmt: skip
#: Fields that change the answer and that no model here can serve, with the values that ask nothing.
_ONLY: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "tools": ([],),
    "functions": ([],),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
}


def openai_routes(services: Open, *, guard: Guard, middleware: Sequence[Middleware] = ()) -> Mount:
    """Everything under /v1. `guard` is asked first, at every request."""

    async def models(request: Request) -> Response:
        guard(request)
        name = await run_in_threadpool(_model_id, services)
        return JSONResponse({"object": "list", "data": [_model_card(name)] if name else []})

    async def chat_completions(request: Request) -> Response:
        guard(request)
        asked = _Asked.parse(await json_object(request))
        client = client_of(request, asked.user)
        completion = await run_in_threadpool(_start, services, asked, client)
        if asked.stream:
            return StreamingResponse(
                _stream(completion, asked, request),
                media_type="text/event-stream",
                headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
            )
        return JSONResponse(asked.completion(await whole_answer(completion, request)))

    routes = [
        Route("/models", _answers_errors(models)),
        Route("/chat/completions", _answers_errors(chat_completions), methods=["POST"]),
    ]
    return Mount("/v1", routes=routes, middleware=list(middleware))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request for one answer, checked. user: for whom, as far as the one who asks says it."""

    model: str
    user: str
    messages: tuple[Message, ...]
    sampling: Mapping[str, object]
    max_tokens: int | None
    stream: bool
    include_usage: bool
    id: str
    created: int

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> _Asked:
        """Raises InvalidParameter naming the field, or NoQuestion."""
        for name, harmless in _ONLY.items():
            if body.get(name) is not None and body[name] not in harmless:
                allowed = f"{json.dumps(harmless[0])} or left out"
                raise InvalidParameter(name=name, value=_shown(body[name]), allowed=allowed)
        stream = _flag("stream", body.get("stream"))
        options = body.get("stream_options")
        if options is not None and not (stream and isinstance(options, dict)):
            allowed = "an object, and only with stream"
            raise InvalidParameter(name="stream_options", value=_shown(options), allowed=allowed)
        usage = options.get("include_usage") if isinstance(options, dict) else False
        stop = body.get("stop")
        return cls(
            model=clean_text("model", body.get("model")),
            user=clean_text("user", body.get("user") or ""),
            messages=_messages(body.get("messages")),
            sampling={name: body.get(name) for name in _NUMBERS}
            | {"stop": (stop,) if isinstance(stop, str) else _tuple(stop)}
            | {"logprobs": _logprobs_asked(body)},
            max_tokens=_max_tokens(body),
            stream=stream,
            include_usage=_flag("stream_options.include_usage", usage),
            id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
        )

    def completion(self, answer: WholeAnswer) -> dict[str, object]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.end.reason}
        return {
            **self._head("chat.completion"),
            "choices": [choice | self._told(answer.logprobs)],
            "usage": _usage_values(answer.end.usage),
        }

    def chunk(
        self,
        delta: Mapping[str, str],
        finish_reason: str | None = None,
        logprobs: Sequence[TokenLogprob] = (),
    ) -> str:
        """One event of a stream."""
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._event([choice | self._told(logprobs)], None)

    def usage_chunk(self, usage: Usage) -> str:
        """The last event of a stream whose client asked for the usage."""
        return self._event([], _usage_values(usage))

    def _told(self, logprobs: Sequence[TokenLogprob]) -> dict[str, object]:
        """The part of a choice that says how likely its tokens were, where that was asked."""
        if self.sampling["logprobs"] is None:
            return {}
        return {"logprobs": {"content": [_logprob_values(t) for t in logprobs], "refusal": None}}

    def _event(self, choices: Sequence[object], usage: object) -> str:
        values = {**self._head("chat.completion.chunk"), "choices": choices}
        return _event(values | {"usage": usage} if self.include_usage else values)

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "model": self.model, "object": kind, "created": self.created}


async def _stream(completion: Completion, asked: _Asked, request: Request) -> AsyncIterator[str]:
    """Server-sent events; an error after the first byte travels as one of them."""
    yield asked.chunk({"role": "assistant"})
    try:
        async with aclosing(events_of(completion, request)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Text):
                    yield asked.chunk({"content": event.text}, logprobs=event.logprobs)
                    continue
                end = completed(event)
                yield asked.chunk({}, end.reason)
                if asked.include_usage:
                    yield asked.usage_chunk(end.usage)
    except GLMError as error:
        yield _event({"error": error_values(error)})
    yield "data: [DONE]\n\n"


def _event(values: Mapping[str, object]) -> str:
    return f"data: {json.dumps(values, ensure_ascii=False)}\n\n"


def _start(services: Open, asked: _Asked, client: str) -> Completion:
    """Starts the answer; raises what the model, the parameters or the context refuse."""
    sampling(asked.sampling)  # a wrong number is said before a missing model
    model = services().model()
    messages = asked.messages
    if model.family == "chatglm2":
        messages = as_the_original_api(messages)
    _, room = prompt_and_room(model, messages)
    limit = min(asked.max_tokens or _DEFAULT_MAX_TOKENS, room)
    params = sampling({**asked.sampling, "max_new_tokens": limit})
    return model.complete(messages, params, client=client)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        shown = "missing" if value is None else _shown(value)
        raise InvalidParameter(name="messages", value=shown, allowed="a list with a message")
    messages = tuple(_message(index, entry) for index, entry in enumerate(value))
    if messages[-1]["role"] != "user":
        raise NoQuestion()
    return messages


def _message(index: int, entry: object) -> Message:
    values = entry if isinstance(entry, dict) else {}
    role = values.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise InvalidParameter(
            name=f"messages.{index}.role", value=_shown(role), allowed="system, user or assistant"
        )
    return {"role": _ROLES[role], "content": _content(index, values.get("content"))}


def _content(index: int, value: object) -> str:
    """The text of a message, also where it comes in parts."""
    name = f"messages.{index}.content"
    if not isinstance(value, list):
        return clean_text(name, value)
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        raise InvalidParameter(name=name, value="not only text", allowed="a text, or parts of text")
    return "".join(clean_text(name, part.get("text")) for part in value)


def _max_tokens(body: Mapping[str, object]) -> int | None:
    """OpenAI's newer name of the limit, or the older one."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            allowed = "a whole number from 1"
            raise InvalidParameter(name=name, value=_shown(value), allowed=allowed)
        return value
    return None


def _logprobs_asked(body: Mapping[str, object]) -> object:
    """How many alternatives of each token are wanted; None where nothing is to be told."""
    wanted = _flag("logprobs", body.get("logprobs"))
    alternatives = body.get("top_logprobs")
    low, high = LIMITS["logprobs"]
    if alternatives is None:
        return 0 if wanted else None
    if type(alternatives) is not int or not low <= alternatives <= high:
        allowed = f"a whole number from {low} to {high}"
        raise InvalidParameter(name="top_logprobs", value=_shown(alternatives), allowed=allowed)
    if not wanted and alternatives:
        raise InvalidParameter(
            name="top_logprobs", value=alternatives, allowed="left out without logprobs"
        )
    return alternatives if wanted else None


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _flag(name: str, value: object) -> bool:
    if value not in (None, True, False):
        raise InvalidParameter(name=name, value=_shown(value), allowed="true or false")
    return bool(value)


def _shown(value: object) -> str:
    return repr(value)[:100]


def _logprob_values(token: TokenLogprob) -> dict[str, object]:
    others = [_told_token(text, value) for text, value in token.alternatives]
    return {**_told_token(token.text, token.logprob), "top_logprobs": others}


def _told_token(text: str, logprob: float) -> dict[str, object]:
    """bytes is null for a part of a character, whose text does not say which bytes it has."""
    known = None if "\N{REPLACEMENT CHARACTER}" in text else list(text.encode())
    return {"token": text, "logprob": max(logprob, _LEAST_LOGPROB), "bytes": known}


def _usage_values(usage: Usage) -> dict[str, object]:
    prompt, answer = usage.prompt_tokens, usage.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _model_id(services: Open) -> str | None:
    """What the one model is called, None while there is none. A folder's path stays private."""
    opened: Services = services()
    try:
        name = opened.model().name
    except ModelNotReady:
        return None
    facts = None if opened.is_remote else opened.models.status().model
    return facts.id if facts is not None and facts.id in CATALOG else name


def _model_card(name: str) -> dict[str, object]:
    return {
        "id": name,
        "object": "model",
        "created": _STARTED_S,
        "owned_by": "owner",
        "root": None,
        "parent": None,
        "permission": None,
    }


def _answers_errors(endpoint: Endpoint) -> Endpoint:
    """OpenAI's form of an error, with the `detail` that clients of the original form read."""

    @functools.wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (InvalidParameter, NoQuestion) as error:
            values = error_values(error)
            parameter = error.details.get("name")
            body = {"error": {**values, "param": parameter}, "detail": _detail(error)}
            return JSONResponse(body, status_code=error.status)

    return answers_errors(answered)


def _detail(error: GLMError) -> object:
    if isinstance(error, NoQuestion):
        return "Invalid request"
    path = [int(p) if p.isdecimal() else p for p in str(error.details["name"]).split(".")]
    place = path if path == ["body"] else ["body", *path]
    return [{"loc": place, "msg": str(error), "type": "value_error"}]
