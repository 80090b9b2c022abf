"""The top of the chat page: the title, and the conversation as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import streamlit as st

from glm_backend.services import Services
from glm_backend.transfer import export_csv, export_json
from ui.chat_view import ChatView
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
            _draw_export(services, view.conversation.id)


def _draw_export(services: Services, conversation_id: str) -> None:
    store, user_id = services.store, services.user_id
    with st.popover(t("chat.export"), key="chat_export", icon=":material/download:"):
        st.caption(t("chat.export_help"))
        download(
            "chat_export_csv",
            "csv",
            lambda: export_csv(store, user_id, [conversation_id], bom=True),
            file_name=f"conversation-{conversation_id[:8]}",
        )
        download(
            "chat_export_json",
            "json",
            lambda: export_json(store, user_id, [conversation_id]),
            file_name=f"conversation-{conversation_id[:8]}",
        )


def download(
    key: str,
    kind: str,
    chunks: Callable[[], Iterator[bytes]],
    *,
    file_name: str,
    disabled: bool = False,
) -> None:
    """A button that makes the file only when it is clicked, outside the script's run."""
    st.download_button(
        t(f"export.{kind}"),
        data=lambda: b"".join(chunks()),
        file_name=f"{file_name}.{kind}",
        mime={"csv": "text/csv", "json": "application/json"}[kind],
        key=key,
        on_click="ignore",
        icon=":material/download:",
        disabled=disabled,
    )
