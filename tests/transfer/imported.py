"""Importing a value, and looking at what came of it."""

from __future__ import annotations

import io
import json
from typing import Any

from glm_backend.store import Store
from glm_backend.transfer import ImportReport, export, import_file


def imported(store: Store, user_id: str, value: object, form: str = "auto") -> ImportReport:
    """The report on importing `value`: bytes as they are, anything else as JSON."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return import_file(store, user_id, io.BytesIO(text), form)


def exported(store: Store, user_id: str) -> list[dict[str, Any]]:
    """Every conversation of the user, as JSON has it."""
    return list(json.loads(b"".join(export(store, user_id, "json")))["conversations"])


def tree(conversation: dict[str, Any]) -> list[str]:
    """The messages as "parent > text", by their numbers in order; "*" marks the shown leaf."""
    numbers = {m["message_id"]: n for n, m in enumerate(conversation["messages"], 1)}
    return [
        f"{numbers.get(m['parent_id'], 0)} > {m['role'][0]}: {m['content']}"
        + " *" * (m["message_id"] == conversation["head_id"])
        for m in conversation["messages"]
    ]
