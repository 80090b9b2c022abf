"""The one way in: a file of any known form, conversation by conversation, into the store.

Memory is that of one portion. A conversation that cannot be read costs itself only, and the
report says which one it was and why.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.store import Store
from glm_backend.store.values import ImportedConversation, ImportOutcome
from glm_backend.transfer.candidates import IMPORT_FORMS, Candidate, Candidates
from glm_backend.transfer.import_report import Entry, ImportReport
from glm_backend.transfer.source import Progress

_TITLE_CHARACTERS = 200
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
    for outcome in deal_with(
        user_id, _conversations(Candidates(file, form, user_id, store.now()), read)
    ):
        while read[0].error is not None:
            report.add(_entry(read.popleft(), None))
        report.add(_entry(read.popleft(), outcome))
        if (done := file.tell() / max(size, 1)) >= told + _TOLD_EVERY:
            on_progress(told := done)
    for candidate in read:
        report.add(_entry(candidate, None))
    on_progress(1.0)
    return report


def _conversations(
    candidates: Iterable[Candidate], read: deque[Candidate]
) -> Iterator[ImportedConversation]:
    """Those that could be read. Each candidate is put into `read`, without its conversation."""
    for candidate in candidates:
        conversation, candidate.conversation = candidate.conversation, None
        read.append(candidate)
        if conversation is not None:
            candidate.title = candidate.title or conversation.title
            yield conversation


def _entry(candidate: Candidate, outcome: ImportOutcome | None) -> Entry:
    return Entry(
        position=candidate.position,
        title=candidate.title[:_TITLE_CHARACTERS],
        form=candidate.form,
        outcome=outcome.state if outcome else "refused",
        messages=outcome.messages if outcome else 0,
        id=outcome.id if outcome else "",
        error=outcome.error if outcome else candidate.error,
        notes=candidate.notes[:_MOST_NOTES],
    )
