"""The one way in: a file of any known form, conversation by conversation, into the store.

Memory is that of one portion. A conversation that cannot be read costs itself only, and the
report says which one it was and why.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from glm_backend.errors import GLMError, InvalidParameter, Phrase
from glm_backend.readable import storable
from glm_backend.store import Store
from glm_backend.store.conversations import TITLE_CHARACTERS
from glm_backend.store.values import ImportedConversation, ImportOutcome
from glm_backend.transfer.candidates import IMPORT_FORMS, Candidate, Candidates
from glm_backend.transfer.import_report import Entry, ImportReport
from glm_backend.transfer.source import Progress

_MOST_NOTES = 20
_TOLD_EVERY = 1 / 200  # of the file


def import_file(
    store: Store,
    user_id: str,
    file: BinaryIO,
    form: str = "auto",
    *,
    dry_run: bool = False,
    on_progress: Progress = lambda _: None,
) -> ImportReport:
    """Writes the conversations of `file` for the user; those that are there already stay.

    file: open for reading bytes, and able to seek. form: one of IMPORT_FORMS. dry_run: only says
    what would happen. on_progress: is told how much of the file is read. Raises InvalidParameter
    for another form, and StoreError when the store fails: what was written before stays, and the
    same call again adds only the rest.
    """
    if form not in IMPORT_FORMS:
        allowed = Phrase("one of {names}", names=", ".join(IMPORT_FORMS))
        raise InvalidParameter(name="format", value=repr(form[:40]), allowed=allowed)
    report = ImportReport(dry_run)
    deal_with = store.preview_import if dry_run else store.import_conversations
    size = file.seek(0, os.SEEK_END)
    read: deque[Candidate] = deque()
    told = 0.0
    candidates = Candidates(file, form, user_id, store.now())
    for outcome in deal_with(user_id, _conversations(candidates, read)):
        report.add(_entry(read.popleft(), outcome))
        if (done := file.tell() / max(size, 1)) >= told + _TOLD_EVERY:
            on_progress(told := done)
    on_progress(1.0)
    return report


def _conversations(
    candidates: Iterable[Candidate], read: deque[Candidate]
) -> Iterator[ImportedConversation | GLMError]:
    """What each was read as. The candidates themselves go into `read`, without that."""
    for candidate in candidates:
        conversation, candidate.conversation = candidate.conversation, None
        read.append(candidate)
        if conversation is not None:
            candidate.title = candidate.title or conversation.title
            yield conversation
        else:
            assert candidate.error is not None
            yield candidate.error


def _entry(candidate: Candidate, outcome: ImportOutcome) -> Entry:
    return Entry(
        position=candidate.position,
        title=storable(candidate.title[:TITLE_CHARACTERS]),  # also of what could not be read
        form=candidate.form,
        outcome=outcome.state,
        messages=outcome.messages,
        id=outcome.id,
        error=outcome.error,
        notes=candidate.notes[:_MOST_NOTES],
    )
