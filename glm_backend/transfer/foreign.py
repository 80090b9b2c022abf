"""Values that another program wrote: read as what they should be, or as nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from glm_backend.errors import Phrase

_MILLISECONDS_FROM = 1e11  # seconds are below until the year 5138
_MOST_COUNT = 2**31
#: Times that every zone's clock can show.
_EARLIEST = datetime.min.replace(tzinfo=UTC) + timedelta(days=2)
_LATEST = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)


def text(value: object) -> str:
    """A text, or none."""
    return value if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[Any]:
    """A list, or an empty one."""
    return value if isinstance(value, list) else ()


def identifier(value: object) -> str | None:
    """What names a thing: a text that is not empty, or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value) or None


def count(value: object) -> int | None:
    """A whole number from 0 that a column holds."""
    return value if type(value) is int and 0 <= value < _MOST_COUNT else None


def time(value: Any) -> datetime | None:
    """A time in seconds or milliseconds since 1970, or as ISO 8601, which is UTC without a zone."""
    try:
        read = _read_time(value)
    except (ValueError, OverflowError, OSError):  # no time that a calendar has
        return None
    return read if read and _EARLIEST <= read <= _LATEST else None


def _read_time(value: Any) -> datetime | None:
    if isinstance(value, str):
        read = datetime.fromisoformat(value)
        return read.astimezone(UTC) if read.tzinfo else read.replace(tzinfo=UTC)
    if type(value) in (int, float) and value:
        seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
        return datetime.fromtimestamp(seconds, UTC)
    return None


def fenced(body: str, language: str = "") -> str:
    """Code as Markdown shows it."""
    fence = "```"
    while fence in body:
        fence += "`"
    return f"{fence}{language}\n{body}\n{fence}"


def quoted(body: str) -> str:
    """What was not said to the other side (thoughts, results of tools) as Markdown shows it."""
    return "\n".join(f"> {line}".rstrip() for line in body.split("\n"))


def as_json(value: object) -> str:
    """Something that has no text, so that at least it can be read."""
    return fenced(json.dumps(value, ensure_ascii=False, indent=1), "json")


def said(content: object, notes: list[Phrase]) -> str:
    """The text of OpenAI's `content` and its likes: a text, or a list of parts.

    What is no text (an image, a file) leaves its kind in brackets, and a note.
    """
    if isinstance(content, dict):
        content = [content]
    parts = [content] if isinstance(content, str) else sequence(content)
    return "\n\n".join(filter(None, (_part(part, notes) for part in parts)))


def _part(part: object, notes: list[Phrase]) -> str:
    if isinstance(part, str):
        return part
    fields = mapping(part)
    for name in ("text", "think", "content", "value", "refusal"):
        inner = fields.get(name)
        body = text(inner) or text(mapping(inner).get("value"))
        if body:
            return quoted(body) if name == "think" else body
    kind = text(fields.get("type")) or text(fields.get("content_type"))
    if not kind or "text" in kind:
        return ""
    if "tool" in kind or "function" in kind:
        return as_json(part)
    return _left_behind(kind, notes)


def attached(files: Sequence[Any], notes: list[Phrase]) -> str:
    """What hung on a message: the name or kind of each in brackets, and a note."""
    named = ("filename", "name", "type")
    kinds = [next(filter(None, (text(mapping(f).get(n)) for n in named)), "file") for f in files]
    return "\n\n".join(_left_behind(kind, notes) for kind in kinds)


def _left_behind(kind: str, notes: list[Phrase]) -> str:
    notes.append(Phrase("an attachment ({kind!r}) was left behind", kind=kind[:40]))
    return f"[{kind[:40]}]"


def fingerprint(value: object) -> str:
    """Names what has no id by what it holds."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
