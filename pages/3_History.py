"""Every conversation: found, looked into, taken away as a file, deleted."""

from __future__ import annotations

import streamlit as st

from glm_backend.errors import GLMError
from glm_backend.services import Services
from ui.chat_head import download
from ui.frame import draw_refusal, open_page, plain_error
from ui.history import PAGE, PLACE, Choice, HistoryActions, chosen_filter, history_table
from ui.labels import t
from ui.pages import CHAT
from ui.safe_markdown import plain
from ui.transcript import draw_transcript


def draw_filters(services: Services) -> Choice:
    """The fields; returns everything that is found with them."""
    search, days, model = st.columns([3, 2, 2], vertical_alignment="bottom")
    text = search.text_input(
        t("history.search"),
        key="history_search",
        placeholder=t("history.search_hint"),
        icon=":material/search:",
        persist_state="session",
    )
    chosen_days = days.date_input(t("history.days"), value=(), key="history_days")
    chosen_model = model.selectbox(
        t("history.model"),
        services.store.models_used(services.user_id),
        index=None,
        placeholder=t("history.any_model"),
        key="history_model",
    )
    found_by = chosen_filter(text, chosen_days, chosen_model)
    return Choice(found_by, (), services.store.count_conversations(services.user_id, found_by))


def draw_table(services: Services, found: Choice) -> tuple[str, ...]:
    """One page of what was found; returns the ids that are marked on it."""
    pages = max(1, -(-found.found // PAGE))
    page = min(st.session_state.get("history_page", 1), pages)
    rows = services.store.list_conversations(
        services.user_id, limit=PAGE, offset=(page - 1) * PAGE, filter=found.filter
    )
    # The marks are row numbers: with other rows they must not stay.
    key = f"history_table_{hash((found.filter, page, tuple(row.id for row in rows)))}"
    event = st.dataframe(
        history_table(rows),
        key=key,
        height="content",
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        column_config=_columns(),
    )
    if pages > 1:
        st.pagination(pages, key="history_page")
    return tuple(rows[i].id for i in event.selection.rows if i < len(rows))


def _columns() -> dict[str, object]:
    column = st.column_config
    return {
        "title": column.TextColumn(t("history.title_column"), width="medium"),
        "preview": column.TextColumn(t("history.preview"), width="large"),
        "messages": column.NumberColumn(t("history.messages"), width="small"),
        "models": column.TextColumn(t("history.models"), width="medium"),
        "changed": column.DatetimeColumn(t("history.changed"), format="YYYY-MM-DD HH:mm"),
    }


def draw_actions(services: Services, choice: Choice) -> None:
    """Export and delete, and what they are about to act on."""
    actions = HistoryActions(services, choice)
    key = "history.marked" if choice.marked else "history.all_found"
    st.caption(t(key, count=choice.count))
    with st.container(key="history_actions", horizontal=True, vertical_alignment="center"):
        bom = st.session_state.get("history_bom", True)
        nothing = choice.count == 0
        download(
            "history_export_csv",
            "csv",
            lambda: actions.csv(bom=bom),
            file_name="conversations",
            disabled=nothing,
        )
        download(
            "history_export_json",
            "json",
            actions.json,
            file_name="conversations",
            disabled=nothing,
        )
        st.checkbox(t("history.bom"), value=True, key="history_bom", help=t("history.bom_help"))
        st.button(
            t("history.delete"),
            key="history_delete",
            icon=":material/delete:",
            on_click=actions.ask_delete,
            disabled=nothing,
        )
    draw_confirmation(actions)


def draw_confirmation(actions: HistoryActions) -> None:
    """Asks before, offers the way back after."""
    asked = st.session_state.get("history_deleting")
    if asked is not None:
        with st.container(key="history_confirm", border=True):
            st.markdown(t("history.sure", count=asked.count))
            with st.container(horizontal=True):
                st.button(
                    t("history.yes"),
                    key="history_delete_yes",
                    type="primary",
                    on_click=actions.delete,
                )
                st.button(t("history.keep"), key="history_delete_no", on_click=actions.keep)
    deleted = st.session_state.get("history_deleted")
    if deleted:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(t("history.deleted", count=len(deleted)), width="content")
            st.button(t("chat.undo"), key="history_undo", on_click=actions.undo)


def draw_preview(services: Services, conversation_id: str) -> None:
    """The transcript of the conversation that was marked last."""
    store, user_id = services.store, services.user_id
    conversation = store.conversation(user_id, conversation_id)
    with st.container(key="history_preview", border=True):
        st.subheader(plain(conversation.title or t("chat.untitled")), anchor=False)
        st.page_link(CHAT, label=t("history.open"), query_params={"c": conversation_id})
        messages = store.path(user_id, conversation_id)
        if messages:
            draw_transcript(messages)


services = open_page()
st.title(t("history.title"), anchor=False)
draw_refusal(PLACE)
try:
    found = draw_filters(services)
    marked: tuple[str, ...] = ()
    if found.found:
        marked = draw_table(services, found)
    else:
        st.info(t("history.nothing"))
    draw_actions(services, Choice(found.filter, marked, found.found))
    if marked:
        draw_preview(services, marked[-1])
except GLMError as error:
    st.error(plain_error(error))
