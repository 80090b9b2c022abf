"""One message of a conversation, as the chat page shows it."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from glm_backend.live_answer import LiveAnswer
from glm_backend.store.values import Message
from ui.chat_actions import ChatActions
from ui.chat_view import ChatView
from ui.frame import plain_error
from ui.labels import t
from ui.safe_markdown import clipped, plain, safe_markdown

#: Pieces a second that a growing answer is drawn in.
_HZ = 10


def draw_message(message: Message, view: ChatView, actions: ChatActions) -> DeltaGenerator | None:
    """Draws it; returns the place of its text where that still grows."""
    with st.chat_message(message.role):
        if st.session_state.get("editing") == message.id and not view.running:
            _draw_editor(message, actions)
            return None
        growing = message.status == "generating"
        with st.container(key=f"answer_{message.id}"):
            place = st.empty() if growing else None
            (place or st).markdown(shown_text(message))
        if growing:
            st.empty()  # covers what stood below an older version
            return place
        with st.container(key=f"below_{message.id}", gap="xsmall"):
            _draw_notes(message, view.live)
            with st.container(
                key=f"foot_{message.id}", horizontal=True, vertical_alignment="center"
            ):
                _draw_versions(message, view, actions)
                last = message.id == view.messages[-1].id
                _draw_buttons(message, actions, last=last, disabled=view.running)
                _draw_figures(message)
    return None


def shown_text(message: Message) -> str:
    """The text of a message as markdown for st.markdown."""
    text, cut = clipped(message.content)
    if message.role == "user":
        shown = safe_markdown(text, keep_lines=True)
    elif text or message.status != "generating":
        shown = safe_markdown(text)
    else:
        shown = f":shimmer[{t('chat.thinking')}]"
    if cut:
        shown += f"\n\n*{t('chat.clipped', shown=len(text), all=len(message.content))}*"
    return shown


def follow(live: LiveAnswer, body: DeltaGenerator) -> None:
    """Draws an answer as it grows, until it has ended.

    The whole text each time, because what a piece means can change with the next one.
    """
    text = ""
    # Touching the session's state is where Streamlit may interrupt this run, for Stop or a click.
    for piece in live.tail(_HZ, poll=lambda: "chat_input" in st.session_state):
        text += piece
        body.markdown(safe_markdown(clipped(text)[0]))


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
        quantization = t(f"quantization.{message.quantization}")
        shown.append(f"{plain(message.model)} ({quantization})")
    if message.seed is not None:
        shown.append(t("figures.seed", value=message.seed))
    return shown


def _draw_figures(message: Message) -> None:
    if message.role == "assistant":
        st.caption(" · ".join(figures(message)))


def _draw_notes(message: Message, live: LiveAnswer | None) -> None:
    """What a reader should know about this answer beside its text."""
    if message.left_out:
        st.caption(t("status.left_out", count=message.left_out))
    if message.finish_reason == "length":
        st.caption(t("status.length"))
    if message.status in ("stopped", "interrupted"):
        st.caption(t(f"status.{message.status}"))
    mine = live if live is not None and live.message_id == message.id else None
    if message.status == "failed":
        known = plain_error(mine.error) if mine and mine.error else plain(message.error or "")
        st.error(known or t("status.failed"))
    if mine and mine.save_error is not None:
        st.warning(t("status.not_saved", reason=plain_error(mine.save_error)))


def _draw_versions(message: Message, view: ChatView, actions: ChatActions) -> None:
    """ "2 / 3" with a way to the version before and to the one after it."""
    siblings = view.siblings(message)
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
            disabled=view.running or not there,
            on_click=actions.show_version,
            args=(siblings[to] if there else message.id,),
        )

    step("previous", at - 1, ":material/chevron_left:")
    st.caption(f"{at + 1} / {len(siblings)}", width="content")
    step("next", at + 1, ":material/chevron_right:")


def _draw_buttons(message: Message, actions: ChatActions, *, last: bool, disabled: bool) -> None:
    if message.role == "user":
        st.button(
            t("chat.edit"),
            key=f"edit_{message.id}",
            type="tertiary",
            icon=":material/edit:",
            disabled=disabled,
            on_click=actions.begin_edit,
            args=(message.id,),
        )
        return
    st.button(
        t("chat.regenerate"),
        key="chat_regenerate" if last else f"chat_regenerate_{message.id}",
        type="tertiary",
        icon=":material/refresh:",
        disabled=disabled,
        on_click=actions.regenerate,
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
