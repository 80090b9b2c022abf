"""Conversations that are a list of turns: ShareGPT, OpenAI's messages, ChatGLM's histories.

ShareGPT: {id, conversations: [{from, value}]}. OpenAI: {messages: [{role, content}]}. ChatGLM:
[[question, answer], …] and, since ChatGLM3, [{role, content, metadata}, …], by itself or as
`history`. What has no id is known again by what it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glm_backend.errors import Phrase
from glm_backend.transfer import foreign
from glm_backend.transfer.draft import Draft, DraftMessage, Side

_SIDES: dict[str, Side] = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "system": "system",
    "developer": "system",
}


def is_sharegpt(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("conversations"), list)


def is_openai(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("messages"), list)


def is_history(value: object) -> bool:
    inner = value.get("history") if isinstance(value, dict) else value
    return isinstance(inner, list) and all(map(is_turn, inner[:1]))


def is_turn(value: object) -> bool:
    """Whether this is one turn of a history, not a conversation."""
    if isinstance(value, list):
        return 1 <= len(value) <= 2 and all(v is None or isinstance(v, str) for v in value)
    return isinstance(value, dict) and "role" in value and "content" in value


def read_sharegpt(value: Mapping[str, Any]) -> Draft:
    turns = map(foreign.mapping, foreign.sequence(value["conversations"]))
    said = [(turn.get("from", turn.get("role")), turn.get("value", turn)) for turn in turns]
    return _draft("sharegpt", value, value["conversations"], said)


def read_openai(value: Mapping[str, Any]) -> Draft:
    turns = map(foreign.mapping, foreign.sequence(value["messages"]))
    return _draft("openai", value, value["messages"], [(t.get("role"), t) for t in turns])


def read_history(value: Any) -> Draft:
    turns = value["history"] if isinstance(value, dict) else value
    said: list[tuple[object, object]] = []
    for turn in turns:
        if isinstance(turn, list):
            said += zip(("user", "assistant"), turn[:2], strict=False)
        else:
            said.append((foreign.mapping(turn).get("role"), turn))
    return _draft("history", foreign.mapping(value), turns, said)


def _draft(
    source: str,
    fields: Mapping[str, Any],
    turns: Sequence[Any],
    said: Sequence[tuple[object, object]],
) -> Draft:
    notes: list[Phrase] = []
    return Draft(
        source=source,
        id=foreign.identifier(fields.get("id")) or foreign.fingerprint(turns),
        title=foreign.text(fields.get("title")),
        messages=list(_messages(said, foreign.text(fields.get("model")), notes)),
        created_at=foreign.time(fields.get("created_at")),
        notes=notes,
    )


def _messages(
    said: Sequence[tuple[object, object]], model: str, notes: list[Phrase]
) -> Iterator[DraftMessage]:
    for place, (role, content) in enumerate(said):
        name = foreign.text(role)
        side = _SIDES.get(name, "assistant" if name else None)
        body = _body(content, notes)
        if name in ("tool", "function", "observation", "function_response") and body:
            body = foreign.quoted(body)
        about = {"model": model} if side == "assistant" and model else {}
        parent_id = str(place - 1) if place else None
        yield DraftMessage(str(place), parent_id, side, body, None, about)


def _body(content: object, notes: list[Phrase]) -> str:
    """The text of a turn, or of OpenAI's message, between what was thought and what it calls."""
    if not isinstance(content, dict):
        return foreign.said(content, notes)
    inner = content.get("content")
    body = foreign.as_json(inner) if isinstance(inner, dict) else foreign.said(inner, notes)
    body = body or foreign.text(content.get("refusal"))
    # DeepSeek and vLLM call it one thing, OpenRouter and later vLLM the other.
    named = (foreign.text(content.get(name)) for name in ("reasoning_content", "reasoning"))
    thoughts = next(filter(None, named), "")
    calls = content.get("tool_calls") or content.get("function_call")
    parts = (thoughts and foreign.quoted(thoughts), body, foreign.as_json(calls) if calls else "")
    return "\n\n".join(filter(None, parts))
