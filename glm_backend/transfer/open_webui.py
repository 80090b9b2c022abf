"""Open WebUI's export: a list of chats, each a tree shown from `currentId` up.

{id, title, chat: {title, models, params: {system}, tags, history: {currentId, messages: {<id>:
{id, parentId, childrenIds, role, content, model, done, timestamp, …}}}}, meta: {tags}, pinned,
archived, created_at, updated_at}, times in seconds; older exports are the bare chat, and the
oldest have a list of `messages` in place of `history`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from glm_backend.errors import Phrase
from glm_backend.transfer import foreign
from glm_backend.transfer.draft import Draft, DraftMessage, Side

_SIDES: dict[str, Side] = {"user": "user", "assistant": "assistant", "system": "system"}


def is_open_webui(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("chat"), dict) or isinstance(value.get("history"), dict)


def read_open_webui(value: Mapping[str, Any]) -> Draft:
    """One chat of the list, or a bare one."""
    notes: list[Phrase] = []
    chat = foreign.mapping(value.get("chat")) or value
    history = foreign.mapping(chat.get("history"))
    meta = foreign.mapping(value.get("meta"))
    tags = foreign.sequence(meta.get("tags")) or foreign.sequence(chat.get("tags"))
    its_id = foreign.identifier(value.get("id")) or foreign.identifier(chat.get("id"))
    return Draft(
        source="open-webui",
        id=its_id or foreign.fingerprint(chat),
        title=foreign.text(value.get("title")) or foreign.text(chat.get("title")),
        messages=list(_messages(chat, history, notes)),
        current_id=foreign.identifier(history.get("currentId")),
        created_at=foreign.time(value.get("created_at")) or foreign.time(chat.get("timestamp")),
        updated_at=foreign.time(value.get("updated_at")),
        system_prompt=foreign.text(foreign.mapping(chat.get("params")).get("system"))
        or foreign.text(chat.get("system")),
        tags=[_tag(tag) for tag in tags],
        pinned=value.get("pinned") is True,
        archived=value.get("archived") is True,
        notes=notes,
    )


def _tag(tag: object) -> str:
    return foreign.text(tag) or foreign.text(foreign.mapping(tag).get("name"))


def _messages(
    chat: Mapping[str, Any], history: Mapping[str, Any], notes: list[Phrase]
) -> Iterator[DraftMessage]:
    tree = foreign.mapping(history.get("messages"))
    linear = foreign.sequence(chat.get("messages"))
    if tree or not linear:
        for its_id, node in tree.items():
            parent_id = foreign.identifier(foreign.mapping(node).get("parentId"))
            yield _message(its_id, parent_id, foreign.mapping(node), notes)
        return
    parent_id = None
    for place, node in enumerate(map(foreign.mapping, linear)):
        its_id = foreign.identifier(node.get("id")) or f"#{place}"
        yield _message(its_id, parent_id, node, notes)
        parent_id = its_id


def _message(
    its_id: str, parent_id: str | None, node: Mapping[str, Any], notes: list[Phrase]
) -> DraftMessage:
    role = foreign.text(node.get("role"))
    side = _SIDES.get(role, "assistant" if role else None)
    said = foreign.said(node.get("content"), notes)
    files = foreign.attached(foreign.sequence(node.get("files")), notes)
    body = "\n\n".join(filter(None, (said, files)))
    about = _about(node) if side == "assistant" else {}
    return DraftMessage(its_id, parent_id, side, body, foreign.time(node.get("timestamp")), about)


def _about(node: Mapping[str, Any]) -> dict[str, Any]:
    error = foreign.mapping(node.get("error"))
    failed = error.get("content") or (node.get("error") if not error else None)
    verdict = foreign.mapping(node.get("annotation"))
    usage = foreign.mapping(node.get("usage")) or foreign.mapping(node.get("info"))
    about = {
        "model": foreign.text(node.get("model")) or None,
        "status": "interrupted" if node.get("done") is False else None,
        "rating": verdict.get("rating") if verdict.get("rating") in (1, -1) else None,
        "comment": foreign.text(verdict.get("comment")) or None,
        "prompt_tokens": foreign.count(usage.get("prompt_tokens", usage.get("prompt_eval_count"))),
        "completion_tokens": foreign.count(usage.get("completion_tokens", usage.get("eval_count"))),
    }
    if failed:
        about |= {"status": "failed", "error": foreign.text(failed) or "failed"}
    return {name: value for name, value in about.items() if value is not None}
