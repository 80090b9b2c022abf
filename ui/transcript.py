"""A short preview of a conversation in streamlit-chat bubbles, a page at a time.

Every bubble is a frame of its own, which costs memory in the browser: ten at once are enough.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from streamlit_chat import message as draw

from glm_backend.store.values import Message
from ui.labels import t
from ui.safe_markdown import clipped, safe_markdown

PAGE = 10
_BUBBLE_CHARACTERS = 2000

#: What the component can colour; a fence in any other language replaces the bubble by an error.
_LANGUAGES = frozenset(
    (Path(__file__).parent / "assets" / "bubble_languages.txt").read_text("utf-8").split()
)
_FENCE = re.compile(r"^([ \t>]*)(`{3,}|~{3,})[ \t]*([^\s`]+)[^\n]*$", re.MULTILINE)


def draw_pages(messages: Sequence[Message], shown_id: str | None = None) -> Sequence[Message]:
    """The way to the other pages; returns the messages of this one.

    shown_id: a message whose page comes first.
    """
    pages = max(1, -(-len(messages) // PAGE))
    if pages == 1:
        return messages
    place = next((i for i, message in enumerate(messages) if message.id == shown_id), 0)
    key = f"transcript_page_{messages[0].conversation_id}_{shown_id or ''}"
    page = st.pagination(pages, default=place // PAGE + 1, key=key)
    return messages[(page - 1) * PAGE : page * PAGE]


def draw_bubble(message: Message) -> None:
    """One message."""
    user = message.role == "user"
    draw(
        bubble_text(message),
        is_user=user,
        # Pictures of this app: the component's own come from another host.
        logo="/assets/person.png" if user else "/assets/icon.png",
        key=f"bubble_{message.id}",
        allow_html=False,
    )


def bubble_text(message: Message) -> str:
    """What a bubble shows of a message."""
    text, cut = clipped(message.content[: _BUBBLE_CHARACTERS + 1])
    cut = cut or len(message.content) > _BUBBLE_CHARACTERS
    text = safe_markdown(text[:_BUBBLE_CHARACTERS], keep_lines=message.role == "user")
    text = _FENCE.sub(_known_language, text)
    if cut:
        shown = min(_BUBBLE_CHARACTERS, len(message.content))
        text += f"\n\n*{t('chat.clipped', shown=shown, all=len(message.content))}*"
    return text if text.strip() else f"*{t(f'history.status_{message.status}')}*"


def _known_language(match: re.Match[str]) -> str:
    indent, mark, language = match.groups()
    known = language.lower() if language.lower() in _LANGUAGES else "text"
    return f"{indent}{mark}{known}"
