"""ChatGPT's conversations.json: a list of trees, each shown from `current_node` up.

{title, create_time, update_time, current_node, mapping: {<id>: {id, parent, children, message:
{author: {role}, create_time, status, content: {content_type, parts | text | …}, metadata} or
null}}}; times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from glm_backend.errors import Phrase
from glm_backend.transfer import foreign
from glm_backend.transfer.draft import Draft, DraftMessage, Side

_SIDES: dict[str, Side] = {"user": "user", "assistant": "assistant", "system": "system"}
_FINISH = {"stop": "stop", "max_tokens": "length", "interrupted": "cancelled"}
_STATUS = {"in_progress": "interrupted", "finished_partial_completion": "stopped"}


def is_chatgpt(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("mapping"), dict)


def read_chatgpt(value: Mapping[str, Any]) -> Draft:
    """One conversation of the list."""
    notes: list[Phrase] = []
    nodes = value["mapping"]
    its_id = value.get("conversation_id") or value.get("id")
    return Draft(
        source="chatgpt",
        id=foreign.identifier(its_id) or foreign.fingerprint(sorted(nodes)),
        title=foreign.text(value.get("title")),
        messages=list(_messages(nodes, notes)),
        current_id=foreign.identifier(value.get("current_node")),
        created_at=foreign.time(value.get("create_time")),
        updated_at=foreign.time(value.get("update_time")),
        archived=value.get("is_archived") is True,
        pinned=value.get("is_starred") is True,
        notes=notes,
    )


def _messages(nodes: Mapping[str, Any], notes: list[Phrase]) -> Iterator[DraftMessage]:
    for its_id, node in nodes.items():
        fields = foreign.mapping(node)
        parent_id = foreign.identifier(fields.get("parent"))
        message = foreign.mapping(fields.get("message"))
        content = foreign.mapping(message.get("content"))
        role = foreign.text(foreign.mapping(message.get("author")).get("role"))
        side = _SIDES.get(role, "assistant" if message else None)  # a tool works for the assistant
        body = _body(content, notes)
        if content.get("content_type") in ("user_editable_context", "model_editable_context"):
            side = "system"
        elif role == "tool" and body:
            body = foreign.quoted(body)
        about = _about(message) if side == "assistant" else {}
        yield DraftMessage(
            its_id, parent_id, side, body, foreign.time(message.get("create_time")), about
        )


def _body(content: Mapping[str, Any], notes: list[Phrase]) -> str:
    kind = foreign.text(content.get("content_type"))
    said = foreign.text(content.get("text"))
    if kind == "code" and said:
        language = foreign.text(content.get("language"))
        return foreign.fenced(said, "" if language == "unknown" else language)
    if kind == "execution_output" and said:
        return foreign.fenced(said)
    if kind == "thoughts":
        thoughts = map(foreign.mapping, foreign.sequence(content.get("thoughts")))
        said = "\n\n".join(foreign.text(t.get("content")) for t in thoughts)
        return foreign.quoted(said) if said.strip() else ""
    if "parts" in content:
        return foreign.said(content["parts"], notes)
    texts = ("title", "url", "text", "result", "content", "user_profile", "user_instructions",
             "model_set_context")  # fmt: skip
    return "\n\n".join(filter(None, (foreign.text(content.get(name)) for name in texts)))


def _about(message: Mapping[str, Any]) -> dict[str, Any]:
    metadata = foreign.mapping(message.get("metadata"))
    finish = foreign.text(foreign.mapping(metadata.get("finish_details")).get("type"))
    about = {
        "model": foreign.text(metadata.get("model_slug")) or None,
        "finish_reason": _FINISH.get(finish),
        "status": _STATUS.get(foreign.text(message.get("status"))),
    }
    return {name: value for name, value in about.items() if value is not None}
