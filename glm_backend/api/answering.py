"""One answer over HTTP: a JSON body in, a completion's events out, cancelled when nobody listens.

What the model routes share; it knows neither OpenAI's form nor the original one.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

from starlette.requests import Request

from glm_backend.completion import Completer, Completion, CompletionEvent, Text, TokenLogprob
from glm_backend.engine.request import LIMITS, Failed, Finished, SamplingParams
from glm_backend.errors import ContextOverflow, EngineClosed, InvalidParameter, MessageTooLong
from glm_backend.models.model import Message
from glm_backend.services import Services

Open = Callable[[], Services]
#: Raises where the one who asks may not.
Guard = Callable[[Request], None]

MAX_BODY_BYTES = 16 * 2**20


async def json_object(request: Request) -> dict[str, object]:
    """The body of a request; raises InvalidParameter or MessageTooLong."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise MessageTooLong(characters=f"more than {MAX_BODY_BYTES}", limit=MAX_BODY_BYTES)
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise InvalidParameter(name="body", value="not JSON", allowed="a JSON object") from None
    if not isinstance(values, dict):
        raise InvalidParameter(name="body", value="not an object", allowed="a JSON object")
    return values


def client_of(request: Request, user: str = "") -> str:
    """Who asks, as far as taking turns goes: an address, and the user that it speaks for."""
    address = request.client.host if request.client else ""
    return f"{address} {user}"


def clean_text(name: str, value: object) -> str:
    """A text that can be written as UTF-8 again; raises InvalidParameter for anything else."""
    if not isinstance(value, str):
        shown = "missing" if value is None else repr(value)[:100]
        raise InvalidParameter(name=name, value=shown, allowed="a text")
    # JSON can hold halves of surrogate pairs, which no encoding can.
    return value.encode("utf-8", "replace").decode("utf-8")


def sampling(values: Mapping[str, object]) -> SamplingParams:
    """The parameters that are named in `values`; None stands for the default."""
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return SamplingParams(**given)  # type: ignore[arg-type]
    except OverflowError:  # an integer that no float can hold
        allowed = ", ".join(f"{name} from {low} to {high}" for name, (low, high) in LIMITS.items())
        raise InvalidParameter(name="a number", value="too large", allowed=allowed) from None


def prompt_and_room(model: Completer, messages: Sequence[Message]) -> tuple[int, int]:
    """Tokens of the prompt, and how many are left for the answer; raises ContextOverflow.

    Nothing is left out of what a program sent: it can only know what was answered that way.
    """
    prompt_tokens = model.count_tokens(messages)
    room = min(model.context_length - prompt_tokens, int(LIMITS["max_new_tokens"][1]))
    if room < 1:
        raise ContextOverflow(
            prompt_tokens=prompt_tokens,
            model=model.name,
            limit=model.context_length - 1,
            context=model.context_length,
            reserved=1,
        )
    return prompt_tokens, room


async def events_of(completion: Completion, request: Request) -> AsyncIterator[CompletionEvent]:
    """The events, as they come. A client that hangs up ends the answer, before its first token too.

    The events block, so a thread of their own reads them: those of the server's pool are few, and
    the pages need them.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[CompletionEvent] = asyncio.Queue()

    def read() -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended
            for event in completion.events():
                loop.call_soon_threadsafe(queue.put_nowait, event)

    async def cancel_when_alone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        completion.cancel()

    threading.Thread(target=read, name="answer", daemon=True).start()
    watcher = asyncio.create_task(cancel_when_alone())
    try:
        event: CompletionEvent | None = None
        while event is None or isinstance(event, Text):
            event = await queue.get()
            yield event
    finally:
        watcher.cancel()
        completion.cancel()


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A text with its end. logprobs: of its tokens, where they were asked for."""

    text: str
    end: Finished
    logprobs: Sequence[TokenLogprob]


async def whole_answer(completion: Completion, request: Request) -> WholeAnswer:
    """The answer once it has ended; raises what ended it early."""
    pieces: list[Text] = []
    async with aclosing(events_of(completion, request)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Text):
                pieces.append(event)
                continue
            end = completed(event)
            text = "".join(piece.text for piece in pieces)
            return WholeAnswer(text, end, [told for piece in pieces for told in piece.logprobs])
    raise AssertionError("a completion ends with Finished or Failed")


def completed(end: Finished | Failed) -> Finished:
    """A proper end; raises the error of any other."""
    if isinstance(end, Failed):
        raise end.error
    if end.reason == "cancelled":  # not by the client, who hears nothing any more
        raise EngineClosed()
    return end
