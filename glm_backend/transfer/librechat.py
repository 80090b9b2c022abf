"""LibreChat's JSON export: one conversation, its messages flat or nested in `children`.

{conversationId, title, endpoint, options: {model, promptPrefix}, recursive, messages |
messagesTree: [{messageId, parentMessageId, isCreatedByUser, text | content, model, error,
unfinished, finish_reason, files, attachments, createdAt, children}]}. `exportAt` is a time
without a date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from glm_backend.errors import Phrase
from glm_backend.transfer import foreign
from glm_backend.transfer.draft import Draft, DraftMessage

#: The parent of what has none.
_NOBODY = "00000000-0000-0000-0000-000000000000"
_RATINGS = {"thumbsUp": 1, "thumbsDown": -1}
_FINISH = {"stop": "stop", "length": "length", "max_tokens": "length"}


def is_librechat(value: Mapping[str, Any]) -> bool:
    return "conversationId" in value and isinstance(_listed(value), list)


def read_librechat(value: Mapping[str, Any]) -> Draft:
    """The conversation that a file holds. What was shown is not told: the newest message is."""
    notes: list[Phrase] = []
    options = foreign.mapping(value.get("options"))
    messages = list(_messages(foreign.sequence(_listed(value)), options, notes))
    return Draft(
        source="librechat",
        id=foreign.identifier(value.get("conversationId")) or foreign.fingerprint(_listed(value)),
        title=foreign.text(value.get("title")),
        messages=messages,
        created_at=foreign.time(value.get("createdAt")),
        updated_at=foreign.time(value.get("updatedAt")),
        system_prompt=foreign.text(options.get("promptPrefix")),
        tags=[foreign.text(tag) for tag in foreign.sequence(value.get("tags"))],
        archived=value.get("isArchived") is True,
        notes=notes,
    )


def _listed(value: Mapping[str, Any]) -> Any:
    return value.get("messagesTree") or value.get("messages")


def _messages(
    roots: Sequence[Any], options: Mapping[str, Any], notes: list[Phrase]
) -> Iterator[DraftMessage]:
    """Flat ones in their order, nested ones level by level, so that no depth is too deep."""
    found: list[tuple[str | None, Any]] = [(None, node) for node in roots]
    for place, (above, node) in enumerate(found):  # grows while it is walked
        fields = foreign.mapping(node)
        its_id = foreign.identifier(fields.get("messageId")) or f"#{place}"
        found += [(its_id, child) for child in foreign.sequence(fields.get("children"))]
        named = foreign.identifier(fields.get("parentMessageId"))
        parent_id = above or (named if named != _NOBODY else None)
        yield _message(its_id, parent_id, fields, options, notes)


def _message(
    its_id: str,
    parent_id: str | None,
    node: Mapping[str, Any],
    options: Mapping[str, Any],
    notes: list[Phrase],
) -> DraftMessage:
    asked = node.get("isCreatedByUser") is True
    said = foreign.text(node.get("text")) or foreign.said(node.get("content"), notes)
    hung = [file for name in ("files", "attachments") for file in foreign.sequence(node.get(name))]
    files = foreign.attached(hung, notes)
    body = "\n\n".join(filter(None, (said, files)))
    created_at = foreign.time(node.get("createdAt"))
    if asked or not node:
        return DraftMessage(its_id, parent_id, "user" if asked else None, body, created_at)
    about = _about(node, options)
    if about.get("status") == "failed":  # its text is the error, which nobody said
        body, about["error"] = files, said or "failed"
    return DraftMessage(its_id, parent_id, "assistant", body, created_at, about)


def _about(node: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    feedback = foreign.mapping(node.get("feedback"))
    status = "stopped" if node.get("unfinished") is True else None
    about = {
        "model": foreign.text(node.get("model")) or foreign.text(options.get("model")) or None,
        "status": "failed" if node.get("error") is True else status,
        "finish_reason": _FINISH.get(foreign.text(node.get("finish_reason"))),
        "completion_tokens": foreign.count(node.get("tokenCount")),
        "prompt_tokens": foreign.count(node.get("promptTokens")),
        "rating": _RATINGS.get(foreign.text(feedback.get("rating"))),
        "comment": foreign.text(feedback.get("text")) or None,
    }
    return {name: value for name, value in about.items() if value is not None}
