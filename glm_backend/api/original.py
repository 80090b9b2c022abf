"""POST /, as the original api.py of ChatGLM2-6B has it: a prompt and a history in, both out.

What the original answers with a bare 500 is answered with 422 and the reason.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from glm_backend.api.answering import (
    Guard,
    Open,
    clean_text,
    client_of,
    json_object,
    prompt_and_room,
    sampling,
    whole_answer,
)
from glm_backend.api.answers import answers_errors
from glm_backend.completion import Completion
from glm_backend.errors import InvalidParameter
from glm_backend.models.model import Message

#: The original takes 0 and null for these, too.
_DEFAULTS = {"max_length": 2048, "top_p": 0.7, "temperature": 0.95}


def original_route(services: Open, *, guard: Guard) -> Route:
    """POST /; GET / is left to whoever has it."""

    async def create_item(request: Request) -> Response:
        guard(request)
        asked = _Asked.parse(await json_object(request))
        completion = await run_in_threadpool(_start, services, asked, client_of(request))
        answer = await whole_answer(completion, request)
        response = answer.text.strip()
        return JSONResponse(
            {
                "response": response,
                "history": [*asked.history, [asked.prompt, response]],
                "status": 200,
                "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            }
        )

    return Route("/", answers_errors(create_item), methods=["POST"])


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, checked. max_length: tokens of prompt and answer together."""

    prompt: str
    history: list[list[str]]
    max_length: int
    sampling: Mapping[str, object]

    @classmethod
    def parse(cls, body: Mapping[str, object]) -> _Asked:
        """Raises InvalidParameter naming the field."""
        values = {name: body.get(name) or default for name, default in _DEFAULTS.items()}
        max_length = values.pop("max_length")
        if not isinstance(max_length, int) or isinstance(max_length, bool) or max_length < 1:
            allowed = "a whole number from 1"
            raise InvalidParameter(name="max_length", value=repr(max_length)[:100], allowed=allowed)
        prompt = clean_text("prompt", body.get("prompt"))
        return cls(prompt, _history(body.get("history")), max_length, values)

    @property
    def messages(self) -> list[Message]:
        """The conversation, with the prompt as its last question."""
        messages: list[Message] = []
        for question, answer in self.history:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        return [*messages, {"role": "user", "content": self.prompt}]


def _history(value: object) -> list[list[str]]:
    turns = [] if value is None else value
    if not isinstance(turns, list) or not all(isinstance(t, list) and len(t) == 2 for t in turns):
        allowed = "a list of [question, answer]"
        raise InvalidParameter(name="history", value=repr(value)[:100], allowed=allowed)
    return [[clean_text("history", text) for text in turn] for turn in turns]


def _start(services: Open, asked: _Asked, client: str) -> Completion:
    """Starts the answer; raises what the model, the parameters or the lengths refuse."""
    sampling(asked.sampling)  # a wrong number is said before a missing model
    model = services().model()
    prompt_tokens, room = prompt_and_room(model, asked.messages)
    limit = min(room, asked.max_length - prompt_tokens)
    if limit < 1:
        allowed = f"more than the {prompt_tokens} tokens of the prompt and its history"
        raise InvalidParameter(name="max_length", value=asked.max_length, allowed=allowed)
    params = sampling({**asked.sampling, "max_new_tokens": limit})
    return model.complete(asked.messages, params, client=client)
