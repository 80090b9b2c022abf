"""ShareGPT and OpenAI's fine-tuning messages: conversations as turns for whoever trains a model.

Both want a system prompt or none, then question and answer in turn. A question whose answer has
no text is left out together with it, and a conversation without any answer gives no record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import orjson

from glm_backend.transfer.source import Source, chunked

_COLUMNS = ("message_id", "parent_id", "role", "content", "system_prompt")


@dataclass(frozen=True, slots=True)
class _Said:
    message_id: str
    parent_id: str | None
    role: str
    content: str
    system_prompt: str | None


def write_sharegpt(source: Source) -> Iterator[bytes]:
    """A list of {"id", "conversations": [{"from", "value"}]}; ids are "<conversation>_<path>"."""
    return chunked(_sharegpt(source))


def write_openai(source: Source) -> Iterator[bytes]:
    """A line {"messages": [{"role", "content"}]} for each path."""
    return chunked(
        orjson.dumps({"messages": [{"role": role, "content": text} for role, text in turns]})
        + b"\n"
        for _, turns in _records(source)
    )


def _sharegpt(source: Source) -> Iterator[bytes]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    lead = b"["
    for record_id, turns in _records(source):
        said = [{"from": names[role], "value": text} for role, text in turns]
        yield lead + b"\n" + orjson.dumps({"id": record_id, "conversations": said})
        lead = b","
    yield b"[]\n" if lead == b"[" else b"\n]\n"


def _records(source: Source) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """An id and the turns of every path that has some; in memory is one conversation."""
    for conversation, portions in source.read(_COLUMNS):
        messages = [_Said(*row) for rows in portions for row in rows]
        numbers = count()
        for path in [messages] if source.shown_only else _paths(messages):
            if turns := _turns(path):
                yield f"{conversation['id']}_{next(numbers)}", turns


def _paths(messages: Sequence[_Said]) -> Iterator[list[_Said]]:
    """From the beginning to every message that nothing follows, in the order of these."""
    by_id = {message.message_id: message for message in messages}
    parents = {message.parent_id for message in messages}
    for leaf in messages:
        if leaf.message_id not in parents:
            path = [leaf]
            while (parent_id := path[-1].parent_id) is not None:
                path.append(by_id[parent_id])
            yield path[::-1]


def _turns(path: Sequence[_Said]) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    question: _Said | None = None
    system_prompt: Any = None
    for message in path:
        if message.role == "user":
            question = message
        elif question is not None and message.content:
            turns += [("user", question.content), ("assistant", message.content)]
            question, system_prompt = None, message.system_prompt
    # The one that the last answer was given under, with all before it in view.
    return [("system", system_prompt), *turns] if system_prompt else turns
