"""Messages in streamlit-chat bubbles, each a frame of its own.

The frame is a page of ours (ui/bubble) around the component's own program, because its style lets
long words and tables run out of the bubble and knows no dark links, and it takes none from outside.
"""

from __future__ import annotations

import re
from pathlib import Path

import streamlit.components.v1 as components
import streamlit_chat  # noqa: F401  (which serves its program to our page)

from glm_backend.store.values import Message
from ui.labels import t
from ui.safe_markdown import clipped, safe_markdown

_FOLDER = Path(__file__).parent

_draw = components.declare_component("bubble", path=str(_FOLDER / "bubble"))

#: What the component can colour; a fence in any other language replaces the bubble by an error.
_LANGUAGES = frozenset((_FOLDER / "assets" / "bubble_languages.txt").read_text("utf-8").split())
_FENCE = re.compile(r"^([ \t>]*)(`{3,}|~{3,})[ \t]*([^\s`]+)[^\n]*$", re.MULTILINE)


def draw_bubble(message: Message) -> None:
    """One message."""
    user = message.role == "user"
    _draw(
        message=bubble_text(message),
        isUser=user,
        # Pictures of this app: the component's own come from another host.
        logo="/assets/person.png" if user else "/assets/icon.png",
        key=f"bubble_{message.id}",
        allow_html=False,
    )


def bubble_text(message: Message) -> str:
    """What a bubble shows of a message."""
    text, cut = clipped(message.content)
    shown = _FENCE.sub(_known_language, safe_markdown(text, keep_lines=message.role == "user"))
    if cut:
        shown += f"\n\n*{t('chat.clipped', shown=len(text), all=len(message.content))}*"
    return shown if shown.strip() else f"*{t(f'history.status_{message.status}')}*"


def _known_language(match: re.Match[str]) -> str:
    indent, mark, language = match.groups()
    known = language.lower() if language.lower() in _LANGUAGES else "text"
    return f"{indent}{mark}{known}"
