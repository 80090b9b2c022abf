"""Where one comes in: is there a model, what was talked about, what can this machine run."""

from __future__ import annotations

import streamlit as st

from glm_backend.services import Services
from ui.engine_figures import draw_engine
from ui.frame import open_page, saying_errors
from ui.history.filter import CURRENT
from ui.labels import t
from ui.machine import draw_machine
from ui.model_panel import draw_model_panel
from ui.pages import CHAT, HISTORY
from ui.safe_markdown import plain
from ui.times import short_time

_RECENT = 6


def draw_way_in() -> None:
    if st.button(
        t("overview.new_chat"),
        key="overview_new_chat",
        type="primary",
        icon=":material/edit_square:",
    ):
        st.switch_page(CHAT)


def draw_recent(services: Services) -> None:
    """The latest conversations, each a link."""
    st.subheader(t("overview.recent"), anchor=False)
    rows = services.store.list_conversations(services.user_id, limit=_RECENT, filter=CURRENT)
    if not rows:
        st.caption(t("overview.none_yet"))
        return
    with st.container(key="recent", gap="xsmall"):
        for row in rows:
            title = plain(row.title or t("chat.untitled"))
            facts = t("overview.row", count=row.message_count, changed=short_time(row.updated_at))
            st.page_link(
                CHAT,
                label=f"**{title}** :small[:gray[{facts}]]",
                query_params={"c": row.id},
                width="stretch",
            )
    st.page_link(HISTORY, label=t("chat.all_conversations"), icon=":material/history:")


services = open_page()
st.title(t("app.name"), anchor=False)
st.caption(t("overview.intro_remote" if services.is_remote else "overview.intro"))
draw_way_in()
left, right = st.columns([1, 1], gap="large")
with left:
    st.subheader(t("overview.model"), anchor=False)
    draw_model_panel(services)
    draw_engine(services)
    with saying_errors():
        draw_recent(services)
if not services.is_remote:
    with right:
        st.subheader(t("overview.machine"), anchor=False)
        with saying_errors():
            draw_machine(services)
