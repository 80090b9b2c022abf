"""What can be done with the conversations that are marked, or with all that were found."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from glm_backend.services import Services
from glm_backend.store.values import ConversationRow
from ui.export import Exported, draw_download, open_export
from ui.frame import draw_refusal
from ui.history.changes import PLACE, Change, Changes
from ui.history.marks import Choice, Marks
from ui.labels import t
from ui.safe_markdown import plain


def draw_bar(
    services: Services,
    choice: Choice,
    rows: Sequence[ConversationRow],
    marks: Marks,
    tags: Sequence[str],
    *,
    busy: bool,
) -> None:
    """Two lines: what is meant, and the buttons that act on it. tags: those one may choose."""
    with st.container(
        key="history_choice", horizontal=True, vertical_alignment="center", gap="small"
    ):
        marks.draw_all(rows, t("history.mark_page"))
        if choice.count:
            key = "history.marked" if choice.marked else "history.all_found"
            st.caption(t(key, count=choice.count), width="content")
        if choice.marked:
            st.button(
                t("history.unmark"), key="history_unmark", type="tertiary", on_click=marks.clear
            )
    with st.container(
        key="history_actions", horizontal=True, vertical_alignment="center", gap="xsmall"
    ):
        _draw_exports(services, choice, rows)
        changes, busy = Changes(services, choice), busy or choice.count == 0
        if choice.reader != services.user_id:
            st.caption(t("history.others"), width="content")
        elif choice.filter.trash:
            _draw_button(changes, "restore", "restore_from_trash", disabled=busy)
            _draw_button(changes, "erase", "delete_forever", disabled=busy)
        else:
            _draw_tagging(changes, choice, tags, disabled=busy)
            _draw_organise(changes, disabled=busy)
            _draw_button(changes, "delete", "delete", disabled=busy)
    with st.container():
        draw_refusal(PLACE)
        _draw_question(services)


def _draw_exports(services: Services, choice: Choice, rows: Sequence[ConversationRow]) -> None:
    sample = choice.marked[: len(rows)] or tuple(row.id for row in rows)
    what = Exported(choice.reader, choice.selection(), choice.count, sample)
    draw_download(services, "history_export_csv", "csv", what, bom=True)
    draw_download(services, "history_export_json", "json", what)
    if st.button(t("export.more"), key="history_export_more", disabled=choice.count == 0):
        open_export(services, what)


def _draw_button(changes: Changes, kind: str, icon: str, *, disabled: bool) -> None:
    st.button(
        t(f"do.{kind}"),
        key=f"history_{kind}",
        icon=f":material/{icon}:",
        disabled=disabled,
        on_click=changes.make,
        args=(kind,),
    )


def _draw_organise(changes: Changes, *, disabled: bool) -> None:
    def choose() -> None:
        kind = st.session_state["history_organise"]
        if kind:
            changes.make(kind)

    st.menu_button(
        t("history.organise"),
        ["pin", "unpin", "archive", "unarchive"],
        key="history_organise",
        icon=":material/inventory_2:",
        format_func=lambda kind: t(f"do.{kind}"),
        disabled=disabled,
        on_click=choose,
    )


def _draw_tagging(changes: Changes, choice: Choice, tags: Sequence[str], *, disabled: bool) -> None:
    def change(kind: str) -> None:
        tag = st.session_state["history_tag_name"]
        if tag and tag.strip():
            changes.make(kind, " ".join(tag.split()))
            if not choice.marked:  # its question stands below, where it would be covered
                st.session_state["history_tags"] = False

    label, icon = t("history.tags"), ":material/label:"
    with st.popover(label, icon=icon, key="history_tags", disabled=disabled, on_change="rerun"):
        st.selectbox(
            t("history.tag_name"),
            tags,
            index=None,
            placeholder=t("history.tag_hint"),
            accept_new_options=True,
            key="history_tag_name",
            persist_state="page",
        )
        with st.container(horizontal=True):
            for kind in ("tag", "untag"):
                st.button(
                    t(f"do.{kind}", count=choice.count),
                    key=f"history_{kind}_them",
                    on_click=change,
                    args=(kind,),
                )


def _draw_question(services: Services) -> None:
    """Is it meant? What it is about is what was chosen when it was asked."""
    change, ids = st.session_state.get("history_asked", (None, ()))
    if change is None:
        return
    changes = Changes(services)
    with st.container(key="history_confirm", border=True):
        st.markdown(_question(services, change, len(ids)))
        with st.container(horizontal=True):
            st.button(
                t(f"do.{change.kind}"),
                key=f"history_{change.kind}_yes",
                type="primary",
                on_click=changes.confirm,
            )
            st.button(t("chat.cancel"), key=f"history_{change.kind}_no", on_click=changes.keep)


def _question(services: Services, change: Change, count: int) -> str:
    days = services.settings.trash_days
    key = f"sure.{change.kind}"
    if change.kind == "delete" and not days:
        key = "sure.delete_kept"
    return t(key, count=count, days=days, tag=plain(change.tag))
