"""The list of conversations beside the chat."""

from __future__ import annotations

import streamlit as st

from glm_backend.errors import StoreError
from glm_backend.services import Services
from glm_backend.store.values import ConversationRow
from ui.chat_actions import ListActions
from ui.frame import plain_error
from ui.history.filter import CURRENT
from ui.labels import t
from ui.pages import CHAT, HISTORY
from ui.safe_markdown import plain, words
from ui.slots import clear_leftover

_LISTED = 30


def draw_sidebar(services: Services, shown_id: str | None) -> None:
    """The newest conversations, with what can be done to each."""
    actions = ListActions(services, shown_id)
    with st.sidebar:
        st.button(
            t("chat.new"),
            key="chat_new",
            icon=":material/edit_square:",
            width="stretch",
            on_click=st.query_params.clear,
        )
        st.page_link(HISTORY, label=t("chat.search"), icon=":material/search:", width="stretch")
        _draw_undo(actions)
        try:
            _draw_list(services, actions, shown_id)
        except StoreError as error:  # the chat beside it goes on without the list
            st.caption(plain_error(error))


def _draw_list(services: Services, actions: ListActions, shown_id: str | None) -> None:
    rows = services.store.list_conversations(services.user_id, limit=_LISTED + 1, filter=CURRENT)
    with st.container(key="conversation_list", gap=None):
        for row in rows[:_LISTED]:
            _draw_row(row, actions, shown=row.id == shown_id)
        clear_leftover("conversations", len(rows[:_LISTED]))
    if len(rows) > _LISTED:
        st.page_link(HISTORY, label=t("chat.all_conversations"))


def _draw_row(row: ConversationRow, actions: ListActions, *, shown: bool) -> None:
    title = row.title or t("chat.untitled")
    if actions.is_renaming(row.id):
        draw_rename(row.id, title, actions)
        return
    key = f"conversation_shown_{row.id}" if shown else f"conversation_{row.id}"
    with st.container(key=key, horizontal=True, wrap=False, gap=None, vertical_alignment="center"):
        st.page_link(CHAT, label=plain(title), width="stretch", query_params={"c": row.id})
        st.menu_button(
            t("chat.menu", title=" ".join(words(title))),
            ["rename", "unpin" if row.pinned else "pin", "archive", "delete"],
            key=f"menu_{row.id}",
            type="tertiary",
            icon=":material/more_horiz:",
            format_func=lambda choice: t(f"do.{choice}"),
            on_click=actions.choose,
            args=(row.id, title),
        )


def draw_rename(conversation_id: str, title: str, actions: ListActions) -> None:
    """A field for a title, which is kept when it is sent."""
    with st.form(f"rename_{conversation_id}", border=False):
        st.text_input(
            t("chat.new_title"), value=title, key=f"title_{conversation_id}", max_chars=200
        )
        with st.container(horizontal=True):
            st.form_submit_button(
                t("chat.save"), type="primary", on_click=actions.rename, args=(conversation_id,)
            )
            st.form_submit_button(t("chat.cancel"), on_click=actions.cancel_rename)


def _draw_undo(actions: ListActions) -> None:
    done = st.session_state.get("put_away")
    place = st.empty()
    if done is not None:
        kind, _, title = done
        with place.container(key="undo", gap="xsmall"):
            st.caption(t(f"chat.{kind}", title=plain(title)))
            st.button(t("chat.undo"), key="chat_undo", on_click=actions.undo)
