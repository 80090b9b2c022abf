"""The top of the chat page: the title, who answers and how, and the conversation as a file."""

from __future__ import annotations

import streamlit as st

from glm_backend.services import Services
from glm_backend.store.values import Conversation
from glm_backend.transfer import Selection
from ui.chat_prompt import draw_prompt
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
            draw_export(services, view.conversation.id, disabled=view.running)
    with st.container(key="chat_about", horizontal=True, vertical_alignment="center", gap="small"):
        if view is not None and view.messages:
            facts = _facts(services, view.conversation)
            if facts:
                st.caption(" · ".join(facts), width="content")
            draw_prompt(services, view.conversation)


def _facts(services: Services, conversation: Conversation) -> list[str]:
    """Who answers here, and what is particular about the conversation."""
    facts = []
    model = None if services.is_remote else services.models.status().model
    if model is not None:
        facts.append(t("chat.model", name=plain(model.name)))
    if conversation.forked_from:
        facts.append(t("chat.forked"))
    if conversation.settings.get("system_prompt"):
        facts.append(t("chat.prompt_own"))
    return facts


def draw_export(services: Services, conversation_id: str, *, disabled: bool = False) -> None:
    """One conversation as a file, in any form.

    disabled: of the forms in a dialog, which a page that follows an answer could not draw.
    """
    this = Exported(services.user_id, Selection((conversation_id,)), 1, [conversation_id])
    with st.popover(t("chat.export"), key="chat_export", icon=":material/download:"):
        st.caption(t("chat.export_help"))
        draw_download(services, "chat_export_csv", "csv", this, bom=True)
        draw_download(services, "chat_export_json", "json", this)
        if st.button(t("export.more"), key="chat_export_more", disabled=disabled):
            open_export(services, this)
