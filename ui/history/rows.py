"""The list of the history page: a page of conversations, what was searched for marked in them."""

from __future__ import annotations

import streamlit as st

from glm_backend.services import LOCAL_USER, Services
from glm_backend.store import ConversationFilter, FoundConversations
from glm_backend.store.values import ConversationRow, Reader
from ui.history.marks import Marks
from ui.history.paging import paged
from ui.labels import t, t_or
from ui.pages import HISTORY
from ui.safe_markdown import highlighted, plain, words
from ui.times import short_time

PAGE = 20


def find_page(services: Services, reader: Reader, filter: ConversationFilter) -> FoundConversations:
    """The page that is turned to, or the last one where the list has become shorter."""
    page = int(st.session_state.get("history_page", 1))
    found = _find(services, reader, filter, page)
    last = pages(found.count)
    if page > last:
        st.session_state["history_page"] = last
        found = _find(services, reader, filter, last)
    return found


def pages(count: int) -> int:
    return max(1, -(-count // PAGE))


def _find(
    services: Services, reader: Reader, filter: ConversationFilter, page: int
) -> FoundConversations:
    return services.store.find_conversations(
        reader, limit=PAGE, offset=(page - 1) * PAGE, filter=filter
    )


def draw_rows(found: FoundConversations, filter: ConversationFilter, marks: Marks) -> None:
    """The rows, and the way to the other pages."""
    turning = paged(pages(found.count), "history_page", kept="session")
    with turning, st.container(key="history_list", gap=None):
        for row in found.rows:
            _draw_row(row, filter, marks)


def _draw_row(row: ConversationRow, filter: ConversationFilter, marks: Marks) -> None:
    title = row.title or t("chat.untitled")
    with st.container(key=f"history_row_{row.id}", horizontal=True, wrap=False, gap="small"):
        # Screen readers read this as it is: words only, as every other mark would need a backslash.
        marks.draw(row, t("history.mark", title=" ".join(words(title))))
        with st.container(gap=None):
            label = f"**{highlighted(title, filter.text)}**"
            # What is in the trash is restored before it is read; others' are listed only.
            if filter.trash or row.user != LOCAL_USER:
                st.markdown(label)
            else:
                link = {"c": row.id} | ({"m": row.hit_id} if row.hit_id else {})
                st.page_link(HISTORY, label=label, query_params=link, width="stretch")
            if row.preview:
                with st.container(key=f"preview_{row.id}"):
                    st.markdown(highlighted(row.preview, filter.text))
            st.markdown(f":small[{facts(row)}]")


def facts(row: ConversationRow) -> str:
    """What is known of a conversation, in one line of markdown."""
    known = [short_time(row.updated_at), t("history.count", count=row.message_count)]
    if row.user != LOCAL_USER:
        known.insert(0, plain(row.user))
    known += map(plain, row.models)
    precisions = [name for name in row.quantizations if name not in ("none", "", None)]
    known += [plain(t_or(f"quantization.{name}", name)) for name in precisions]
    if row.pinned:
        known.insert(0, f":material/keep: {t('history.is_pinned')}")
    shown = [f":gray[{' · '.join(known)}]"]
    if row.archived_at is not None:
        shown.append(f":gray-badge[{t('history.is_archived')}]")
    shown += [f":green-badge[{plain(tag)}]" for tag in row.tags]
    return " ".join(shown)
