"""What became of each conversation of a file that was imported, or would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from glm_backend.errors import GLMError, Phrase

#: imported: written (or to be written). known: there already. trash: there, in the trash.
#: refused: cannot be taken, and why.
Outcome = Literal["imported", "known", "trash", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("imported", "known", "trash", "refused")
_LISTED = 1000  # of each outcome; a file may hold millions


@dataclass(frozen=True, slots=True)
class Entry:
    """One conversation of the file. position: its place there, from 1. id: in the store."""

    position: int
    title: str
    form: str
    outcome: Outcome
    messages: int = 0
    id: str = ""
    error: GLMError | None = None
    notes: Sequence[Phrase] = ()

    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "position": self.position,
            "title": self.title,
            "form": self.form,
            "outcome": self.outcome,
            "messages": self.messages,
            "id": self.id or None,
            "reason": None if self.error is None else str(self.error),
            "notes": [str(note) for note in self.notes],
        }


@dataclass(slots=True)
class ImportReport:
    """Counts of conversations by outcome and by form, of messages imported, and entries.

    Of each outcome the first 1,000 entries are kept; `left_off` counts the others.
    """

    dry_run: bool
    counts: Counter[Outcome] = field(default_factory=Counter)
    forms: Counter[str] = field(default_factory=Counter)
    messages: int = 0
    left_off: int = 0
    _entries: dict[Outcome, list[Entry]] = field(
        default_factory=lambda: {outcome: [] for outcome in OUTCOMES}
    )

    def add(self, entry: Entry) -> None:
        """Counts one conversation."""
        self.counts[entry.outcome] += 1
        self.forms[entry.form] += 1
        self.messages += entry.messages
        listed = self._entries[entry.outcome]
        if len(listed) < _LISTED:
            listed.append(entry)
        else:
            self.left_off += 1

    @property
    def entries(self) -> list[Entry]:
        """In the order of the file."""
        listed = (entry for entries in self._entries.values() for entry in entries)
        return sorted(listed, key=lambda entry: entry.position)

    @property
    def failed(self) -> bool:
        """Whether there was something to take and nothing of it could be."""
        return self.counts["refused"] > 0 and self.counts["refused"] == self.counts.total()

    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "dry_run": self.dry_run,
            "conversations": {outcome: self.counts[outcome] for outcome in OUTCOMES},
            "messages": self.messages,
            "forms": dict(self.forms),
            "entries": [entry.values() for entry in self.entries],
            "left_off": self.left_off,
        }
