"""What a person thinks of an answer: a thumb, and a note that says why."""

from __future__ import annotations

import functools
from typing import Any, cast

import streamlit as st

from glm_backend.services import Services
from glm_backend.store.ratings import Rating
from glm_backend.store.values import Message
from ui.frame import attempt
from ui.labels import t
from ui.safe_markdown import safe_markdown

#: What st.feedback gives for a thumb, and what the store keeps.
_RATINGS: dict[int | None, Rating | None] = {0: -1, 1: 1, None: None}
_THUMBS = {rating: thumb for thumb, rating in _RATINGS.items()}
_NOTE_CHARACTERS = 4000


class RatingActions:
    """Rating the answers of one conversation. place: where a refusal is shown."""

    def __init__(self, services: Services, conversation_id: str, place: str) -> None:
        self._services = services
        self._conversation_id = conversation_id
        self._place = place

    def rate(self, answer: Message) -> None:
        """Keeps the thumb; a note stays with the answer whatever the thumb says."""
        thumb = st.session_state[f"rating_{answer.id}"]
        self._keep(answer.id, rating=_RATINGS[thumb])

    def begin_note(self, answer_id: str) -> None:
        st.session_state["noting"] = answer_id

    def cancel_note(self) -> None:
        st.session_state.pop("noting", None)

    def keep_note(self, answer: Message) -> None:
        """A note that is refused stays in its box."""
        note = st.session_state[f"note_{answer.id}"]
        if self._keep(answer.id, comment=note):
            self.cancel_note()

    def _keep(self, answer_id: str, **given: Any) -> bool:
        service, user_id = self._services.chat, self._services.user_id
        rate = functools.partial(service.rate, user_id, self._conversation_id, answer_id, **given)
        return attempt(self._place, rate)


def draw_thumbs(answer: Message, actions: RatingActions) -> None:
    """The two thumbs, and the way to a note once one of them is chosen."""
    key, thumb = f"rating_{answer.id}", _THUMBS[cast("Rating | None", answer.rating)]
    st.session_state[key] = thumb  # also where it was rated elsewhere, or could not be kept
    st.feedback("thumbs", key=key, on_change=actions.rate, args=(answer,))
    if answer.rating is not None and not answer.comment:
        _draw_note_button(answer, actions, t("rating.add_note"))


def draw_note(answer: Message, actions: RatingActions) -> None:
    """The note below the answer, or the box in which it is written."""
    if st.session_state.get("noting") == answer.id:
        _draw_editor(answer, actions)
    elif answer.comment:
        with st.container(
            key=f"noted_{answer.id}", horizontal=True, vertical_alignment="top", gap="small"
        ):
            st.markdown(safe_markdown(answer.comment, keep_lines=True), width="content")
            _draw_note_button(answer, actions, t("rating.change_note"))


def _draw_note_button(answer: Message, actions: RatingActions, label: str) -> None:
    st.button(
        label,
        key=f"add_note_{answer.id}",
        type="tertiary",
        icon=":material/edit_note:",
        on_click=actions.begin_note,
        args=(answer.id,),
    )


def _draw_editor(answer: Message, actions: RatingActions) -> None:
    st.text_area(
        t("rating.note"),
        value=answer.comment or "",
        key=f"note_{answer.id}",
        placeholder=t("rating.note_hint"),
        max_chars=_NOTE_CHARACTERS,
        height=80,
    )
    with st.container(horizontal=True):
        st.button(
            t("rating.keep_note"),
            key="note_keep",
            type="primary",
            on_click=actions.keep_note,
            args=(answer,),
        )
        st.button(t("chat.cancel"), key="note_cancel", on_click=actions.cancel_note)
