"""The history page's data and actions: what is filtered, chosen, exported and deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import pandas as pd
import streamlit as st

from glm_backend.services import Services
from glm_backend.store import ConversationFilter
from glm_backend.store.values import ConversationRow
from glm_backend.transfer import export_csv, export_json
from ui.frame import attempt
from ui.labels import t
from ui.times import day_range, reader_zone

PLACE = "history"
PAGE = 20


def chosen_filter(text: str, days: Sequence[date], model: str | None) -> ConversationFilter:
    """The filter that the fields stand for; one day alone is a range of one day."""
    since = until = None
    if days:
        since, until = day_range(days[0], days[-1])
    return ConversationFilter(text=text.strip(), since=since, until=until, model=model)


def history_table(rows: Sequence[ConversationRow]) -> pd.DataFrame:
    """One page of conversations for st.dataframe, times in the reader's zone."""
    zone = reader_zone()
    return pd.DataFrame(
        {
            "title": [row.title or t("chat.untitled") for row in rows],
            "changed": [row.updated_at.astimezone(zone).replace(tzinfo=None) for row in rows],
            "messages": [row.message_count for row in rows],
            "models": [", ".join(_with_quantization(row)) for row in rows],
            "preview": [row.preview for row in rows],
        }
    )


def _with_quantization(row: ConversationRow) -> list[str]:
    precisions = [t(f"quantization.{name}") for name in row.quantizations if name != "none"]
    return [*row.models, *precisions]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which conversations a button means: the marked ones, else everything that was found."""

    filter: ConversationFilter
    marked: tuple[str, ...]
    found: int

    @property
    def count(self) -> int:
        return len(self.marked) or self.found


class HistoryActions:
    """What the buttons of the history page do."""

    def __init__(self, services: Services, choice: Choice) -> None:
        self._services = services
        self._choice = choice

    def csv(self, *, bom: bool) -> Iterator[bytes]:
        """The chosen conversations as chunks of a CSV file."""
        ids = list(self._choice.marked) or None
        services, chosen = self._services, self._choice.filter
        return export_csv(services.store, services.user_id, ids, chosen, bom=bom)

    def json(self) -> Iterator[bytes]:
        """The chosen conversations as chunks of a JSON document."""
        ids = list(self._choice.marked) or None
        services = self._services
        return export_json(services.store, services.user_id, ids, self._choice.filter)

    def ask_delete(self) -> None:
        st.session_state["history_deleting"] = self._choice

    def keep(self) -> None:
        st.session_state.pop("history_deleting", None)

    def delete(self) -> None:
        """Deletes what was asked about, which is what was chosen then."""
        choice: Choice = st.session_state.pop("history_deleting")
        attempt(PLACE, self._delete, choice)

    def undo(self) -> None:
        ids = st.session_state.pop("history_deleted", [])
        attempt(PLACE, self._services.store.restore, self._services.user_id, ids)

    def _delete(self, choice: Choice) -> None:
        services = self._services
        marked = list(choice.marked) or None
        ids = services.store.select_conversations(services.user_id, marked, choice.filter)
        for conversation_id in ids:
            services.chat.stop(conversation_id)
        services.store.delete(services.user_id, ids)
        st.session_state["history_deleted"] = ids
