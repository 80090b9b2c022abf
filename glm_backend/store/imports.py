"""Whole conversations written at once, with the ids and times they come with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Column, Connection, Row, insert, select
from sqlalchemy.exc import IntegrityError

from glm_backend.errors import GLMError, StoreError
from glm_backend.store.conversations import Room, in_batches
from glm_backend.store.imported import CheckedConversation
from glm_backend.store.schema import conversation_tags, conversations, messages
from glm_backend.store.search_index import TITLE_SEQ, Document, index_of
from glm_backend.store.upserts import insert_kept
from glm_backend.store.usage import add_usage
from glm_backend.store.values import ImportedConversation, ImportOutcome

_MESSAGES_A_PORTION, _CHARACTERS_A_PORTION = 5000, 8_000_000
_MESSAGES_A_GROUP = 1000  # some 60 ms: whoever writes an answer meanwhile waits so long
_MOST_AT_ONCE = 20  # groups a transaction, while nobody waits
_TRIES = 4  # two imports of the same file at once may both find an id free

_Group = list[CheckedConversation]
#: A conversation, or why it could not be read.
_Given = ImportedConversation | GLMError


class Imports(Room):
    """Writing conversations that were led elsewhere."""

    def import_conversations(
        self, user_id: str, given: Iterable[_Given]
    ) -> Iterator[ImportOutcome]:
        """Writes those that are not there yet, while the outcomes, one for each, are taken.

        Each conversation is taken whole or not at all, and none stops the others. One whose id
        the user already has stays as it is ("known", or "trash" when it is there). An id that
        something else has already, of whomever, is replaced, together with the others of that
        conversation: by uuid5 of the user's id and the id, for messages "conversation id/message
        id"; so the same file gives the same ids again and adds nothing. What does not hold
        together is "refused" with its error (see ImportedConversation), and so is what could not
        even be read: its error stands in its place.

        seq, turn and branch follow from the order of the messages and their parents; an answer
        that was "generating" is "interrupted"; without a head the last message is it. All of it
        is found by the search at once, and counts in the usage by day on the days it was written.

        An outcome is given when it is on the disk. So much is read at a time as goes well into
        memory and into the store, while what was read before is committed; where others want to
        write, it lets them after every 1,000 messages or so. Raises StoreError and its kinds: what
        was written before stays, and the same call again adds only the rest.
        """
        before: _Written | None = None
        for portion in _portions(given):
            if before is not None:
                yield from before.outcomes()
            before = self._write(user_id, portion)
        if before is not None:
            yield from before.outcomes()

    def preview_import(self, user_id: str, given: Iterable[_Given]) -> Iterator[ImportOutcome]:
        """What `import_conversations` would give now. Writes nothing.

        Holds on to the ids, so that one that comes twice is told as it would be.
        """
        before: dict[str, str] = {}
        for portion in _portions(given):
            with self._database.reading() as connection:
                good = portion.good
                placed = _placed(connection, user_id, good, before, look_at_messages=True)
            yield from portion.outcomes(placed)

    def _write(self, user_id: str, portion: _Portion) -> _Written:
        outcomes: list[ImportOutcome] = []
        groups = list(_groups(portion.good))
        committed: Future[None] | None = None
        tries_left = _TRIES
        while groups:
            if committed is not None:
                committed.result()
            try:
                # The first time without a look at the messages: their ids are hardly ever taken.
                dealt, committed = self._write_some(
                    user_id, groups, look_at_messages=tries_left < _TRIES
                )
            except StoreError as error:
                tries_left -= 1
                if not tries_left or not isinstance(error.__cause__, IntegrityError):
                    raise
            else:
                outcomes += chain.from_iterable(dealt)
                del groups[: len(dealt)]
                tries_left = _TRIES
        return _Written(portion.outcomes(outcomes), committed)

    def _write_some(
        self, user_id: str, groups: Sequence[_Group], *, look_at_messages: bool
    ) -> tuple[list[list[ImportOutcome]], Future[None]]:
        """One transaction: the first of the groups, and more while nobody waits."""
        dealt: list[list[ImportOutcome]] = []
        with self._database.writing_behind() as (connection, committed):
            for group in groups[:_MOST_AT_ONCE]:
                outcomes = _placed(
                    connection, user_id, group, {}, look_at_messages=look_at_messages
                )
                pairs = zip(group, outcomes, strict=True)
                _insert(connection, user_id, [c for c, o in pairs if o.state == "imported"])
                dealt.append(outcomes)
                if self._database.others_wait:
                    break
        return dealt, committed


@dataclass(frozen=True, slots=True)
class _Portion:
    """Conversations that came one after the other: their rows, or why they are refused."""

    checked: Sequence[CheckedConversation | GLMError]

    @property
    def good(self) -> list[CheckedConversation]:
        return [one for one in self.checked if isinstance(one, CheckedConversation)]

    def outcomes(self, of_good: Iterable[ImportOutcome]) -> list[ImportOutcome]:
        """One for each, given those of the good ones in their order."""
        rest = iter(of_good)
        return [
            ImportOutcome("refused", error=one) if isinstance(one, GLMError) else next(rest)
            for one in self.checked
        ]


@dataclass(frozen=True, slots=True)
class _Written:
    """What became of a portion, which is certain once it is committed."""

    dealt: list[ImportOutcome]
    committed: Future[None] | None

    def outcomes(self) -> list[ImportOutcome]:
        """Waits for the commit. Raises StoreError when it failed."""
        if self.committed is not None:
            self.committed.result()
        return self.dealt


def _portions(given: Iterable[_Given]) -> Iterator[_Portion]:
    """As many at a time as go well into memory and into the store.

    Each is checked as it comes and let go of: its texts are in its rows.
    """
    checked: list[CheckedConversation | GLMError] = []
    messages = characters = 0
    for conversation in given:
        one = _checked(conversation)
        checked.append(one)
        messages += 1
        if isinstance(one, CheckedConversation):
            messages += len(one.messages)
            characters += sum(len(row["content"]) for row in one.messages)
        if messages >= _MESSAGES_A_PORTION or characters >= _CHARACTERS_A_PORTION:
            yield _Portion(checked)
            checked, messages, characters = [], 0, 0
    if checked:
        yield _Portion(checked)


def _checked(given: _Given) -> CheckedConversation | GLMError:
    if isinstance(given, GLMError):
        return given
    try:
        return CheckedConversation(given)
    except GLMError as error:
        return error


def _groups(good: Sequence[CheckedConversation]) -> Iterator[_Group]:
    """Parts of about as many messages as others can wait for."""
    group: _Group = []
    held = 0
    for conversation in good:
        group.append(conversation)
        held += 1 + len(conversation.messages)
        if held >= _MESSAGES_A_GROUP:
            yield group
            group, held = [], 0
    if group:
        yield group


def _placed(
    connection: Connection,
    user_id: str,
    group: Sequence[CheckedConversation],
    before: dict[str, str],
    *,
    look_at_messages: bool,
) -> list[ImportOutcome]:
    """What is to happen with each; those to be imported have ids now that nothing else has.

    Whether those of the messages are free is only known if they were looked at. before: the ids
    of those that were placed and not written, by those they came with; these are added to it.
    """
    their_ids = [i for c in group for i in (c.given_id, c.id_for(user_id))]
    columns = (conversations.c.id, conversations.c.user_id, conversations.c.deleted_at)
    there = _found(connection, columns, their_ids)
    message_ids = [row["id"] for c in group for row in c.messages if look_at_messages]
    taken = {row.id for row in chain(there, _found(connection, (messages.c.id,), message_ids))}
    known = {
        row.id: ImportOutcome("trash" if row.deleted_at else "known", row.id)
        for row in there
        if row.user_id == user_id
    }
    outcomes = []
    for conversation in group:
        outcome = known.get(conversation.given_id) or known.get(conversation.id_for(user_id))
        if outcome is None and conversation.given_id in before:
            outcome = ImportOutcome("known", before[conversation.given_id])
        if outcome is None:
            if taken & conversation.ids():
                conversation.take_other_ids(user_id)
            taken |= conversation.ids()
            before[conversation.given_id] = conversation.id
            outcome = ImportOutcome("imported", conversation.id, len(conversation.messages))
        outcomes.append(outcome)
    return outcomes


def _found(
    connection: Connection, columns: Sequence[Column[Any]], ids: Sequence[str]
) -> list[Row[Any]]:
    query = select(*columns)
    return [
        row
        for some in in_batches(ids)
        for row in connection.execute(query.where(columns[0].in_(some)))
    ]


def _insert(connection: Connection, user_id: str, new: Sequence[CheckedConversation]) -> None:
    if not new:
        return
    rows = [row for conversation in new for row in conversation.messages]
    tags = [{"conversation_id": c.id, "tag": tag} for c in new for tag in c.tags]
    add_usage(connection, user_id, rows)
    insert_kept(connection, conversations, [c.row | {"user_id": user_id} for c in new])
    insert_kept(connection, messages, rows)
    if tags:
        connection.execute(insert(conversation_tags), tags)
    titles = (Document(c.id, TITLE_SEQ, c.row["title"]) for c in new if c.row["title"])
    texts = (Document(row["conversation_id"], row["seq"], row["content"]) for row in rows)
    index_of(connection).add(connection, [*titles, *texts])
