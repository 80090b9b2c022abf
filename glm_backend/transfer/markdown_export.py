"""Markdown: conversations for reading, and for notes.

Every text stands in a block quote, so that nothing in it can end early or pose as a heading of
ours. What would fetch or run something in a viewer (an image, HTML) makes its message be shown as
it was written, in a block of code; inside code it may stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from glm_backend.transfer.source import Source, chunked

_COLUMNS = ("turn", "branch", "role", "content", "status", "model", "error", "created_at")
_PARSED_CHARACTERS = 20_000  # a longer text that looks active is shown as it was written

_looks_active = re.compile(r"<[A-Za-z/!?]|!\[").search
_line_end = re.compile(r"\r\n|\r|\n")
_mark = re.compile(r"[\\`*_{}\[\]()#+\-.!|<>~$:&]")
_backticks = re.compile(r"`+")
_parse = MarkdownIt("commonmark").parse


def write_markdown(source: Source) -> Iterator[bytes]:
    """One text with a heading for each conversation, and one for each message."""
    return chunked(piece.encode() for piece in _pieces(source))


def _pieces(source: Source) -> Iterator[str]:
    between = ""
    for conversation, portions in source.read(_COLUMNS):
        title = _plain(conversation["title"]) or conversation["id"]
        yield f"{between}# {title}\n\n{_plain(conversation['user'])}, {conversation['created_at']}"
        for row in chain.from_iterable(portions):
            yield "\n\n" + _message(dict(zip(_COLUMNS, row, strict=True)))
        between = "\n\n\n"
    yield "\n" if between else ""


def _message(said: dict[str, Any]) -> str:
    version = f", version {said['branch']}" if said["branch"] > 1 else ""
    asked = said["role"] == "user"
    speaker = "User" if asked else _plain(said["model"] or "") or "Assistant"
    parts = [f"## {said['turn']}{version}: {speaker}, {said['created_at']}"]
    if said["content"]:
        parts.append(_quoted(said["content"]))
    if said["status"] != "complete":
        error = f": {_plain(said['error'])}" if said["error"] else ""
        parts.append(f"*{said['status']}{error}*")
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    lines = _line_end.split(text)
    if _looks_active(text) and _is_active(text):
        longest = max(map(len, _backticks.findall(text)), default=0)
        fence = "`" * max(3, longest + 1)
        lines = [fence + "text", *lines, fence]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _is_active(text: str) -> bool:
    """Whether an image or HTML stands anywhere but in code."""
    return len(text) > _PARSED_CHARACTERS or any(map(_is_active_token, _flat(_parse(text))))


def _is_active_token(token: Token) -> bool:
    if token.type in ("fence", "code_block", "code_inline", "inline"):
        return False
    return token.type in ("image", "html_inline", "html_block") or (
        # An image by reference may find what it refers to in another message.
        _looks_active(token.content) is not None
    )


def _flat(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


def _plain(text: str) -> str:
    """One line in which every mark stands for itself."""
    return _mark.sub(r"\\\g<0>", " ".join(text.split()))
