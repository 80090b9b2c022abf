"""The top of the chat page: the title, where it came from, and the conversation as a file."""

from __future__ import annotations

import streamlit as st

from glm_backend.services import Services
from glm_backend.transfer import Selection
from ui.chat_view import ChatView
from ui.export import Exported, draw_download, open_export
from ui.labels import t
from ui.safe_markdown import plain


def draw_head(services: Services, view: ChatView | None) -> None:
    """Title and export. Always the same elements, so that nothing below them moves."""
    with st.container(key="chat_head", horizontal=True, vertical_alignment="center", wrap=False):
        title = t("chat.untitled")
        if view is not None:
            title = view.conversation.title or title
        st.subheader(plain(title), anchor=False, width="stretch")
        if view is not None and view.messages:
            draw_export(services, view.conversation.id)
    with st.empty():
        if view is not None and view.conversation.forked_from:
            st.caption(t("chat.forked"))


def draw_export(services: Services, conversation_id: str) -> None:
    """One conversation as a file, in any form."""
    this = Exported(services.user_id, Selection((conversation_id,)), 1, [conversation_id])
    with st.popover(t("chat.export"), key="chat_export", icon=":material/download:"):
        st.caption(t("chat.export_help"))
        draw_download(services, "chat_export_csv", "csv", this, bom=True)
        draw_download(services, "chat_export_json", "json", this)
        if st.button(t("export.more"), key="chat_export_more"):
            open_export(services, this)
