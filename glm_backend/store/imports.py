"""Whole conversations written at once, with the ids and times they come with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

_MESSAGES_A_GROUP = 1000  # some 60 ms: whoever writes an answer meanwhile waits so long
_MOST_AT_ONCE = 20  # groups a transaction, while nobody waits
_TRIES = 4  # two imports of the same file at once may both find an id free

_Group = list[CheckedConversation]
_Dealt = list[ImportOutcome]


class Imports(Room):
    """Writing conversations that were led elsewhere."""

    def import_conversations(
        self, user_id: str, batch: Iterable[ImportedConversation]
    ) -> list[ImportOutcome]:
        """Writes those that are not there yet; an outcome for each, in their order.

        Each conversation is taken whole or not at all, and none stops the others. One whose id
        the user already has stays as it is ("known", or "trash" when it is there). An id that
        something else has already, of whomever, is replaced, together with the others of that
        conversation: by uuid5 of the user's id and the id, for messages "conversation id/message
        id"; so the same file gives the same ids again and adds nothing. What does not hold
        together is "refused" with its error (see ImportedConversation).

        seq, turn and branch follow from the order of the messages and their parents; an answer
        that was "generating" is "interrupted"; without a head the last message is it. All of it
        is found by the search at once, and counts in the usage by day on the days it was written.

        A conversation is checked as it comes and let go of, so that what is read from a file need
        not be held whole beside its rows. The more a call brings (1,000 conversations, say), the
        less each costs; where others want to write, it lets them after every 1,000 messages or so.
        Raises StoreError and its kinds: what was written before stays, and the same call again adds
        only the rest.
        """
        return self._take(user_id, batch, self._write)

    def preview_import(
        self, user_id: str, batch: Iterable[ImportedConversation]
    ) -> list[ImportOutcome]:
        """What `import_conversations` would answer now. Writes nothing."""
        return self._take(user_id, batch, self._look)

    def _take(
        self,
        user_id: str,
        batch: Iterable[ImportedConversation],
        deal_with: Callable[[str, Sequence[CheckedConversation]], _Dealt],
    ) -> list[ImportOutcome]:
        outcomes: dict[int, ImportOutcome] = {}
        good: dict[int, CheckedConversation] = {}
        for place, conversation in enumerate(batch):
            try:
                good[place] = CheckedConversation(conversation)
            except GLMError as error:
                outcomes[place] = ImportOutcome("refused", error=error)
        outcomes |= zip(good, deal_with(user_id, list(good.values())), strict=True)
        return [outcomes[place] for place in sorted(outcomes)]

    def _look(self, user_id: str, good: Sequence[CheckedConversation]) -> _Dealt:
        with self._database.reading() as connection:
            return _placed(connection, user_id, good, look_at_messages=True)

    def _write(self, user_id: str, good: Sequence[CheckedConversation]) -> _Dealt:
        outcomes: _Dealt = []
        groups = list(_groups(good))
        tries_left = _TRIES
        while groups:
            try:
                # The first time without a look at the messages: their ids are hardly ever taken.
                dealt = self._write_some(user_id, groups, look_at_messages=tries_left < _TRIES)
            except StoreError as error:
                tries_left -= 1
                if not tries_left or not isinstance(error.__cause__, IntegrityError):
                    raise
            else:
                outcomes += chain.from_iterable(dealt)
                del groups[: len(dealt)]
                tries_left = _TRIES
        return outcomes

    def _write_some(
        self, user_id: str, groups: Sequence[_Group], *, look_at_messages: bool
    ) -> list[_Dealt]:
        """One transaction: the first of the groups, and more while nobody waits."""
        dealt: list[_Dealt] = []
        with self._database.writing() as connection:
            for group in groups[:_MOST_AT_ONCE]:
                outcomes = _placed(connection, user_id, group, look_at_messages=look_at_messages)
                pairs = zip(group, outcomes, strict=True)
                _insert(connection, user_id, [c for c, o in pairs if o.state == "imported"])
                dealt.append(outcomes)
                if self._database.others_wait:
                    break
        return dealt


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
    *,
    look_at_messages: bool,
) -> _Dealt:
    """What is to happen with each; those to be imported have ids now that nothing else has.

    Whether those of the messages are free is only known if they were looked at.
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
        if outcome is None:
            if taken & conversation.ids():
                conversation.take_other_ids(user_id)
            taken |= conversation.ids()
            known[conversation.given_id] = ImportOutcome("known", conversation.id)
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
