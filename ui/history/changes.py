"""What is done to many conversations at once, in the background, and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import streamlit as st

from glm_backend.services import Services
from glm_backend.store import ConversationFilter
from ui.frame import attempt, plain_error
from ui.history.marks import Choice, unmark
from ui.job import Job, Progress, has_ended
from ui.labels import t
from ui.safe_markdown import plain

#: What takes each change back. What is not here cannot be taken back.
_OPPOSITE = {
    "pin": "unpin",
    "unpin": "pin",
    "archive": "unarchive",
    "unarchive": "archive",
    "tag": "untag",
    "untag": "tag",
    "delete": "restore",
    "restore": "delete",
}
#: What is asked about also where it is marked what is meant.
_ASKED = ("delete", "erase")
#: Where a refusal is told.
PLACE = "history"
_AT_ONCE = 500
_ERASED_AT_ONCE = 20  # each is a transaction of its own


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is done to conversations. kind: a method of the store. tag: for tagging."""

    kind: str
    tag: str = ""
    #: The ids it has changed so far, also where it ends with an error.
    changed: list[str] = field(default_factory=list)

    def carry_out(self, services: Services, ids: Sequence[str], on_progress: Progress) -> None:
        """Some at a time, so that others have their turn. Raises what the store raises."""
        change = getattr(services.store, self.kind)
        more = [self.tag] if self.tag else []
        step = _ERASED_AT_ONCE if self.kind == "erase" else _AT_ONCE
        for start in range(0, len(ids), step):
            some = ids[start : start + step]
            if self.kind == "delete":
                for conversation_id in some:
                    services.chat.stop(conversation_id)
            self.changed.extend(change(services.user_id, some, *more))
            on_progress((start + len(some)) / len(ids))

    @property
    def opposite(self) -> Change | None:
        """What takes it back."""
        kind = _OPPOSITE.get(self.kind)
        return None if kind is None else Change(kind, self.tag)

    def takes_out_of(self, filter: ConversationFilter) -> bool:
        """Whether what is changed so is no longer in the list of this filter."""
        match self.kind:
            case "pin" | "unpin":
                return filter.pinned is not None
            case "archive" | "unarchive":
                return filter.archived is not None
            case "tag" | "untag":
                return filter.tag == self.tag
        return True


class Changes:
    """The actions of the history page, one at a time; what was done last can be taken back."""

    def __init__(self, services: Services, choice: Choice | None = None) -> None:
        self._services = services
        self._choice = choice

    def make(self, kind: str, tag: str = "") -> None:
        """Begins a change of what is chosen; asks first where that is all that was found."""
        assert self._choice is not None
        change = Change(kind, tag)
        if kind in _ASKED or not self._choice.marked:
            attempt(PLACE, self._ask, change, self._choice)
        else:
            self.begin(change, self._choice.marked)

    def _ask(self, change: Change, choice: Choice) -> None:
        """What is there now is meant, whatever will be found when the answer comes."""
        st.session_state["history_asked"] = (change, choice.ids(self._services))

    def keep(self) -> None:
        """It was not meant."""
        st.session_state.pop("history_asked", None)

    def confirm(self) -> None:
        """It is meant."""
        self.begin(*st.session_state.pop("history_asked"))

    def undo(self) -> None:
        """Takes the last change back."""
        done: Change = st.session_state.pop("history_changed")[0]
        if done.opposite is not None:
            self.begin(done.opposite, done.changed)

    def begin(self, change: Change, ids: Sequence[str]) -> None:
        """Begins a change of these, which may be taken back, without a question."""
        services, these = self._services, tuple(ids)
        unmark(these, change.takes_out_of)
        job = Job(lambda report: change.carry_out(services, these, report), t(f"do.{change.kind}"))
        st.session_state["history_changed"] = (change, job, these)


def draw_changes(services: Services, conversation_id: str | None = None) -> bool:
    """What is being done, or was done last with the way back; True while it is being done.

    conversation_id: says only what is done to this one alone.
    """
    change, job, ids = st.session_state.get("history_changed", (None, None, ()))
    with st.container(key="history_change"):  # always, so that nothing below it moves
        if change is None:
            return False
        if conversation_id is not None and ids != (conversation_id,):
            return not job.ended
        if not has_ended(job, t(f"doing.{change.kind}")):
            st.button(t("chat.stop"), key="history_stop", on_click=job.stop)
            return True
        if job.error is not None:
            st.error(plain_error(job.error))
        with st.container(horizontal=True, vertical_alignment="center"):
            done = t(f"done.{change.kind}", count=len(change.changed), tag=plain(change.tag))
            st.caption(done, width="content")
            if change.opposite is not None and change.changed:
                undo = Changes(services).undo
                st.button(t("chat.undo"), key="history_undo", type="tertiary", on_click=undo)
    return False
