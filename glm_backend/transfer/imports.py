"""The one way in: a file of any known form, conversation by conversation, into the store.

Memory is that of one portion. A conversation that cannot be read costs itself only, and the
report says which one it was and why.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.store import Store
from glm_backend.store.values import ImportedConversation, ImportOutcome
from glm_backend.transfer.candidates import IMPORT_FORMS, Candidate, Candidates
from glm_backend.transfer.import_report import Entry, ImportReport
from glm_backend.transfer.source import Progress

_MESSAGES_AT_ONCE = 5000
_CHARACTERS_AT_ONCE = 8_000_000
_TITLE_CHARACTERS = 200
_MOST_NOTES = 20


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
    candidates = iter(Candidates(file, form, user_id, store.now()))
    while True:
        portion: list[Candidate] = []
        outcomes = iter(deal_with(user_id, _conversations(candidates, portion)))
        if not portion:
            return report
        for candidate in portion:
            report.add(_entry(candidate, next(outcomes) if candidate.error is None else None))
        on_progress(file.tell() / max(size, 1))


def _conversations(
    candidates: Iterator[Candidate], portion: list[Candidate]
) -> Iterator[ImportedConversation]:
    """As many at a time as go well into memory and into the store.

    The candidates are put into `portion`, without their conversations: each is let go of as soon as
    it has been taken, for its texts are in the rows that the store makes of it.
    """
    messages = characters = 0
    for candidate in candidates:
        conversation, candidate.conversation = candidate.conversation, None
        portion.append(candidate)
        messages += 1
        if conversation is not None:
            candidate.title = candidate.title or conversation.title
            messages += len(conversation.messages)
            characters += sum(len(message["content"]) for message in conversation.messages)
            yield conversation
        if messages >= _MESSAGES_AT_ONCE or characters >= _CHARACTERS_AT_ONCE:
            return


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
