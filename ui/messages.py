"""One message of a conversation, as the chat page shows it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from glm_backend.errors import GLMError
from glm_backend.live_answer import LiveAnswer
from glm_backend.store.values import Message
from ui.chat_actions import ChatActions
from ui.chat_view import ChatView
from ui.frame import plain_error
from ui.labels import kept_error, t, t_or
from ui.ratings import RatingActions, draw_note, draw_thumbs
from ui.safe_markdown import clipped, plain, safe_markdown

#: Pieces a second that a growing answer is drawn in.
_HZ = 10
#: What is told of an answer's settings, and how much of its system prompt.
_PARAMETERS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "max_new_tokens",
)
_PROMPT_SHOWN = 200


class Growing(NamedTuple):
    """Where an answer that is being written stands: its text, and what is to be said below it."""

    body: DeltaGenerator
    notice: DeltaGenerator


def draw_message(
    message: Message, view: ChatView, actions: ChatActions, ratings: RatingActions
) -> Growing | None:
    """Draws it; returns its places where it still grows."""
    with st.chat_message(message.role):
        if st.session_state.get("editing") == message.id and not view.running:
            _draw_editor(message, actions)
            return None
        growing = message.status == "generating"
        with st.container(key=f"answer_{message.id}"):
            place = st.empty() if growing else st.container()
            place.markdown(shown_text(message))
        if growing:
            return Growing(place, st.empty())  # which covers what stood below an older version
        with st.container(key=f"below_{message.id}", gap="xsmall"):
            _draw_notes(message, view.live)
            if st.session_state.get("copying") == message.id:
                _draw_written(message)
            with st.container(
                key=f"foot_{message.id}", horizontal=True, vertical_alignment="center"
            ):
                draw_versions(message, view.siblings(message), actions, disabled=view.running)
                _draw_buttons(message, view, actions)
                if message.role == "assistant":
                    draw_thumbs(message, ratings)
                    draw_figures(message)
            if message.role == "assistant":
                draw_note(message, ratings)
    return None


def _draw_written(message: Message) -> None:
    """The text as it was written: the script of the page copies it, where the browser lets it,
    and shows only that it did. Else there is a box with a button that copies."""
    with st.container(key=f"written_{message.id}", gap="xsmall"):
        with st.container(key="copied"):
            st.caption(t("chat.copied"))
        st.code(message.content, language=None, wrap_lines=True)


def shown_text(message: Message) -> str:
    """The text of a message as markdown for st.markdown."""
    text, cut = clipped(message.content)
    if message.finish_reason == "length":
        text = text.rstrip("\ufffd")  # the beginning of a character, which Continue completes
    if message.role == "user":
        shown = safe_markdown(text, keep_lines=True)
    elif text or message.status != "generating":
        shown = safe_markdown(text)
    else:
        shown = waiting_text(0)
    if cut:
        shown += f"\n\n*{t('chat.clipped', shown=len(text), all=len(message.content))}*"
    return shown


def waiting_text(place: int) -> str:
    """Stands where an answer will: its place in line, or that the model is at it."""
    said = t("chat.in_line", place=place) if place else t("chat.thinking")
    return f":shimmer[{said}]"


def follow(live: LiveAnswer, place: Growing) -> None:
    """Draws an answer as it grows, until it has ended.

    The whole text each time, because what a piece means can change with the next one.
    """
    text, number = "", 0
    said: GLMError | None = None

    def wait() -> bool:
        nonlocal number
        if not text and live.place != number:
            number = live.place
            place.body.markdown(waiting_text(number))
        # Where Streamlit may interrupt this run, for Stop or a click: at the session's state.
        return "chat_input" in st.session_state

    for piece in live.tail(_HZ, poll=wait):
        text += piece
        place.body.markdown(_growing(clipped(text)[0]))
        if live.save_error is not said:
            said = live.save_error
            _draw_save_error(place.notice, said)


@functools.lru_cache(maxsize=16)
def _growing(text: str) -> str:
    """Of an answer under way, which everybody who watches it draws at the same moment."""
    return safe_markdown(text)


def _draw_save_error(place: DeltaGenerator, error: GLMError | None) -> None:
    """The store is away, or back again."""
    if error is None:
        place.empty()
    else:
        place.warning(t("status.not_saved", reason=plain_error(error)))


def figures(message: Message) -> list[str]:
    """What is known of how an answer was made, each as a short text."""
    known = [
        ("figures.speed", message.tokens_per_s),
        ("figures.first", None if message.ttft_ms is None else message.ttft_ms / 1000),
        ("figures.prompt", message.prompt_tokens),
        ("figures.completion", message.completion_tokens),
    ]
    shown = [t(key, value=value) for key, value in known if value is not None]
    if message.model:
        shown.append(plain(message.model))
        if precision := message.quantization:
            shown[-1] += f" ({plain(t_or(f'quantization.{precision}', precision))})"
    if message.seed is not None:
        shown.append(t("figures.seed", value=message.seed))
    return shown


def draw_figures(message: Message) -> None:
    """How an answer was made, in one small line, and what it was made with."""
    st.caption(" · ".join(figures(message)), help=_parameters(message))


def _parameters(message: Message) -> str | None:
    """The settings of that moment, a line each; None where none is known."""
    known = [(name, getattr(message, name)) for name in _PARAMETERS]
    lines = [f"{t(f'settings.{name}')}: {value:g}" for name, value in known if value is not None]
    if message.system_prompt:
        prompt = message.system_prompt[:_PROMPT_SHOWN]
        more = "…" if len(message.system_prompt) > _PROMPT_SHOWN else ""
        lines.append(f"{t('settings.system_prompt')}: {plain(prompt)}{more}")
    return "  \n".join(lines) or None


def _draw_notes(message: Message, live: LiveAnswer | None) -> None:
    """What a reader should know about this answer beside its text."""
    if message.left_out:
        st.caption(t("status.left_out", count=message.left_out))
    if message.finish_reason == "length":
        st.caption(t("status.length"))
    if message.status in ("stopped", "interrupted"):
        unloaded = message.finish_reason == "unloaded"
        st.caption(t("status.unloaded" if unloaded else f"status.{message.status}"))
    mine = live if live is not None and live.message_id == message.id else None
    if message.status == "failed":
        st.error(_why_failed(message, mine))
    if mine and mine.save_error is not None:
        _draw_save_error(st.empty(), mine.save_error)


def _why_failed(message: Message, live: LiveAnswer | None) -> str:
    if live is not None and live.error is not None:
        return plain_error(live.error)
    return " ".join([t("status.failed"), plain(kept_error(message.error or ""))])


def draw_versions(
    message: Message, siblings: Sequence[str], actions: ChatActions, *, disabled: bool = False
) -> None:
    """ "2 / 3" with a way to the version before and to the one after it."""
    if len(siblings) < 2:
        return
    at = siblings.index(message.id)

    def step(way: str, to: int, icon: str) -> None:
        there = 0 <= to < len(siblings)
        st.button(
            t(f"chat.{way}_version"),
            key=f"{way}_{message.id}",
            type="tertiary",
            icon=icon,
            disabled=disabled or not there,
            on_click=actions.show_version,
            args=(siblings[to] if there else message.id,),
        )

    step("previous", at - 1, ":material/chevron_left:")
    st.caption(f"{at + 1} / {len(siblings)}", width="content")
    step("next", at + 1, ":material/chevron_right:")


def _draw_buttons(message: Message, view: ChatView, actions: ChatActions) -> None:
    def button(name: str, key: str, icon: str, on_click: Callable[[str], None]) -> None:
        st.button(
            t(f"chat.{name}"),
            key=key,
            type="tertiary",
            icon=icon,
            disabled=view.running,
            on_click=on_click,
            args=(message.id,),
        )

    its_id, last = message.id, message.id == view.messages[-1].id
    if message.role == "user":
        button("edit", f"edit_{its_id}", ":material/edit:", actions.begin_edit)
        if last:  # a branch may end with a question, and so may what was imported
            button("answer", "chat_answer", ":material/reply:", actions.regenerate)
    else:
        button("copy", f"copy_{its_id}", ":material/content_copy:", actions.begin_copy)
        key = "chat_regenerate" if last else f"chat_regenerate_{its_id}"
        button("regenerate", key, ":material/refresh:", actions.regenerate)
        if message.can_be_continued:
            button("continue", f"continue_{its_id}", ":material/resume:", actions.carry_on)
    draw_fork(message, actions, disabled=view.running)


def draw_fork(message: Message, actions: ChatActions, *, disabled: bool = False) -> None:
    """The way to a conversation of its own that begins like this one."""
    st.button(
        t("chat.fork"),
        key=f"fork_{message.id}",
        type="tertiary",
        icon=":material/call_split:",
        help=t("chat.fork_help"),
        disabled=disabled,
        on_click=actions.fork,
        args=(message.id,),
    )


def _draw_editor(message: Message, actions: ChatActions) -> None:
    st.text_area(
        t("chat.edit_label"),
        value=message.content,
        key=f"edit_text_{message.id}",
        height="content",
        label_visibility="collapsed",
    )
    with st.container(horizontal=True):
        st.button(
            t("chat.resend"),
            key="edit_send",
            type="primary",
            on_click=actions.send_edit,
            args=(message.id,),
        )
        st.button(t("chat.cancel"), key="edit_cancel", on_click=actions.cancel_edit)
