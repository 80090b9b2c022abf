"""Which conversations are marked, over all pages of one list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st

from glm_backend.services import Services
from glm_backend.store import ConversationFilter
from glm_backend.store.values import ConversationRow, Reader
from glm_backend.transfer import Selection

_KEY = "history_marks"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which conversations a button means: the marked ones, else everything that was found.

    reader: whose are looked at; only one's own can be changed.
    """

    reader: Reader
    filter: ConversationFilter
    marked: tuple[str, ...]
    found: int

    @property
    def count(self) -> int:
        return len(self.marked) or self.found

    def ids(self, services: Services) -> list[str]:
        """Their ids, the oldest conversation first where all that were found are meant."""
        if self.marked:
            return list(self.marked)
        return services.store.select_conversations(services.user_id, filter=self.filter)

    def selection(self, *, shown_only: bool | None = None) -> Selection:
        """The same as exports have it."""
        return Selection(self.marked or None, self.filter, shown_only)


class Marks:
    """The marks belong to one list: in another one, what is marked could not be seen."""

    def __init__(self, reader: Reader, filter: ConversationFilter) -> None:
        belongs_to, self._ids = st.session_state.get(_KEY, (None, set()))
        #: True where another list was shown before.
        self.of_another_list = belongs_to not in (None, (reader, filter))
        if belongs_to != (reader, filter):
            self._ids = set()
            st.session_state[_KEY] = ((reader, filter), self._ids)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(sorted(self._ids))

    def drop_gone(self, services: Services) -> None:
        """Takes the marks off what was deleted or changed elsewhere and is found no more."""
        (reader, filter), _ = st.session_state[_KEY]
        if self._ids:
            found = services.store.found_among(reader, self.ids, filter)
            self._ids.intersection_update(found)

    def draw(self, row: ConversationRow, label: str) -> None:
        """The box of one row."""
        key = f"mark_{row.id}"
        st.session_state[key] = row.id in self._ids
        st.checkbox(
            label, key=key, label_visibility="collapsed", on_change=self._toggle, args=([row.id],)
        )

    def draw_all(self, rows: Sequence[ConversationRow], label: str) -> None:
        """The box of all rows of a page."""
        ids = [row.id for row in rows]
        st.session_state["history_mark_page"] = bool(ids) and self._ids.issuperset(ids)
        st.checkbox(label, key="history_mark_page", on_change=self._toggle, args=(ids,))

    def clear(self) -> None:
        self._ids.clear()

    def _toggle(self, ids: Sequence[str]) -> None:
        if self._ids.issuperset(ids):
            self._ids.difference_update(ids)
        else:
            self._ids.update(ids)


def unmark(ids: Sequence[str], left: Callable[[ConversationFilter], bool]) -> None:
    """Takes the marks off those that are no longer in the list, where they could not be seen.

    left: whether they have left the list of a filter.
    """
    belongs_to, marked = st.session_state.get(_KEY, (None, set()))
    if belongs_to is not None and left(belongs_to[1]):
        marked.difference_update(ids)
