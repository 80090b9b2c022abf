"""Which conversations the history page lists: the search box, the shelf, the other filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, NamedTuple, get_args

import streamlit as st

from glm_backend.models.model import QUANTIZATIONS
from glm_backend.services import Services
from glm_backend.store import ConversationFilter
from glm_backend.store.values import Everybody, Reader, Status
from ui.labels import t
from ui.times import day_range

#: What each shelf adds to the filter; the everyday list comes first.
SHELVES: dict[str, dict[str, bool]] = {
    "current": {"archived": False},
    "pinned": {"pinned": True},
    "archived": {"archived": True},
    "all": {},
    "trash": {"trash": True},
}
#: The everyday list.
CURRENT = ConversationFilter(archived=False)
_RATINGS = (1, -1)
#: The fields beside search and shelf, each with what it holds when it filters nothing.
_FIELDS: dict[str, object] = {
    "history_user": None,
    "history_days": (),
    "history_model": None,
    "history_quantization": None,
    "history_status": None,
    "history_rating": None,
    "history_tag": None,
}


class Listing(NamedTuple):
    """What the fields stand for: whose conversations, and which; and the tags that these have."""

    reader: Reader
    filter: ConversationFilter
    tags: Sequence[str]


def draw_filter(services: Services) -> Listing:
    """The fields; returns what they stand for."""
    with st.container(
        key="history_filter", horizontal=True, vertical_alignment="bottom", gap="small"
    ):
        text = st.text_input(
            t("history.search"),
            key="history_search",
            placeholder=t("history.search_hint"),
            icon=":material/search:",
            type="search",
            live="400ms",
            label_visibility="collapsed",
            persist_state="session",
        )
        count = sum(st.session_state.get(key, empty) != empty for key, empty in _FIELDS.items())
        label = t("history.filters_on", count=count) if count else t("history.filters")
        with st.popover(label, icon=":material/tune:", key="history_filters"):
            values = _draw_fields(services)
    shelf = st.segmented_control(
        t("history.shelf"),
        list(SHELVES),
        default="current",
        required=True,
        format_func=lambda name: t(f"shelf.{name}"),
        key="history_shelf",
        label_visibility="collapsed",
        persist_state="session",
    )
    reader, tags = values.pop("reader"), values.pop("tags")
    chosen = SHELVES[shelf or "current"]
    filter = ConversationFilter(text=(text or "").strip(), **values, **chosen)
    return Listing(reader, filter, tags)


def _draw_fields(services: Services) -> dict[str, Any]:
    reader, user = _draw_user(services)
    store = services.store
    tags = store.tags_used(reader)
    days = st.date_input(t("history.days"), value=(), key="history_days", persist_state="session")
    since, until = _range(days)
    values = {
        "reader": reader,
        "tags": tags,
        "user": user,
        "since": since,
        "until": until,
        "model": _one_of("model", store.models_used(reader), str),
        "quantization": _one_of(
            "quantization", QUANTIZATIONS, lambda name: t(f"quantization.{name}")
        ),
        "status": _one_of("status", get_args(Status), lambda name: t(f"history.status_{name}")),
        "rating": _one_of("rating", _RATINGS, lambda value: t(f"history.rated_{_WORD[value]}")),
        "tag": _one_of("tag", tags, str),
    }
    st.button(t("history.clear"), key="history_clear", on_click=_clear)
    return values


def _draw_user(services: Services) -> tuple[Reader, str | None]:
    """Whose, for an administrator: one's own at first, then everybody's or those of one user."""
    names = services.store.user_names() if services.is_admin else []
    if len(names) < 2:
        return services.user_id, None
    chosen = _one_of(
        "user",
        [Everybody.EVERYBODY, *names],
        lambda name: t("history.everybody") if name is Everybody.EVERYBODY else name,
        none=t("history.own"),
    )
    if chosen is None:
        return services.user_id, None
    return Everybody.EVERYBODY, None if chosen is Everybody.EVERYBODY else chosen


_WORD = {1: "good", -1: "bad"}


def _one_of(name: str, options: Sequence[Any], said: Callable[[Any], str], none: str = "") -> Any:
    """One of the options, or None, which is an option too: only so can it be set from here."""
    key = f"history_{name}"
    chosen = st.session_state.get(key)
    if chosen is not None and chosen not in options:  # the last with this tag was untagged
        options = [*options, chosen]
    none = none or t("history.any")
    return st.selectbox(
        t(key.replace("_", ".", 1)),
        [None, *options],
        format_func=lambda value: none if value is None else said(value),
        key=key,
        placeholder=none,  # which is shown for None that was not just chosen
        persist_state="session",
    )


def _range(days: Sequence[date]) -> tuple[datetime | None, datetime | None]:
    """One day alone is a range of one day."""
    return day_range(days[0], days[-1]) if days else (None, None)


def _clear() -> None:
    st.session_state.update(_FIELDS)
