"""Every conversation: found, read, put in order, taken away as a file, brought in."""

from __future__ import annotations

import streamlit as st

from glm_backend.errors import UnknownConversation
from glm_backend.services import Services
from ui.frame import open_page, plain_error, saying_errors
from ui.history.bar import draw_bar
from ui.history.changes import draw_changes
from ui.history.filter import CURRENT, draw_filter
from ui.history.marks import Choice, Marks
from ui.history.reader import draw_reader
from ui.history.rows import draw_rows, find_page
from ui.importing import draw_import
from ui.labels import t
from ui.usage import draw_usage


def draw_list(services: Services) -> None:
    """What is found, what can be done with it, and the way in for more."""
    reader, filter, tags = draw_filter(services)
    busy = draw_changes(services)
    marks = Marks(reader, filter)
    if marks.of_another_list:
        st.session_state["history_page"] = 1
    marks.drop_gone(services)
    found = find_page(services, reader, filter)
    with st.empty():
        if filter.trash:
            days = services.settings.trash_days
            st.caption(t("history.trash_days", days=days) if days else t("history.trash_kept"))
    choice = Choice(reader, filter, marks.ids, found.count)
    draw_bar(services, choice, found.rows, marks, tags, busy=busy)
    if found.rows:
        draw_rows(found, filter, marks)
        draw_import(services, expanded=False)
        return
    empty = filter == CURRENT
    st.info(t("history.empty" if empty else "history.nothing"))
    draw_import(services, expanded=empty)


def draw_overview(services: Services) -> None:
    st.title(t("history.title"), anchor=False)
    conversations, usage = st.tabs(
        [t("history.conversations"), t("history.usage")], key="history_view", on_change="rerun"
    )
    if conversations.open:
        with conversations:
            draw_list(services)
    if usage.open:
        with usage:
            draw_usage(services)


services = open_page()
conversation_id = st.query_params.get("c")
with saying_errors():
    try:
        if conversation_id is None:
            draw_overview(services)
        else:
            draw_reader(services, conversation_id, st.query_params.get("m"))
    except UnknownConversation as error:  # the link leads nowhere
        st.warning(plain_error(error))
