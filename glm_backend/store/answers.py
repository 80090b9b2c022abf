"""Answers while they are made: begun before the first token, written as they grow, ended once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import (
    Connection,
    Row,
    bindparam,
    func,
    insert,
    select,
    update,
)

from glm_backend.errors import (
    AnswerRunning,
    InvalidParameter,
    Phrase,
    UnknownMessage,
)
from glm_backend.store.conversations import (
    Room,
    in_batches,
    new_id,
    owned,
    set_title,
    title_from,
)
from glm_backend.store.messages import message_in, require_continuable
from glm_backend.store.schema import conversations, is_generating, messages
from glm_backend.store.search_index import Document, index_of
from glm_backend.store.usage import add_usage
from glm_backend.store.values import AnswerParameters, AnswerUpdate, Message


class Answers(Room):
    """Writing questions and answers. Nothing is ever overwritten but an answer that grows."""

    def begin_turn(  # noqa: PLR0917
        self,
        user_id: str,
        conversation_id: str,
        parent_id: str | None,
        question: str,
        answer: AnswerParameters,
        owner: str,
    ) -> tuple[Message, Message]:
        """The question and its empty answer, both committed; the conversation shows them.

        parent_id: the message they follow, None at the beginning; a message that has children
        already gets another branch. owner: names the process that writes the answer.
        Raises UnknownConversation, UnknownMessage, and AnswerRunning below an answer that is still
        being written, by whatever process.
        """
        with self._database.writing() as connection:
            conversation = owned(connection, user_id, conversation_id, lock=True)
            parent = message_in(connection, conversation_id, parent_id) if parent_id else None
            if parent is not None and parent.status == "generating":
                raise AnswerRunning()
            place = _place(connection, conversation_id, parent, self.now())
            asked = Message(**place, role="user", content=question, status="complete")
            _insert(connection, asked)
            if not conversation.title and (title := title_from(question)):
                set_title(connection, conversation_id, "", title)
            index_of(connection).add(connection, [_document(asked)])
            kind = {"model": answer.model, "quantization": answer.quantization}
            add_usage(connection, user_id, [asdict(asked) | kind])
            return asked, self._begin(connection, asked, answer, owner)

    def begin_answer(
        self,
        user_id: str,
        conversation_id: str,
        question_id: str,
        answer: AnswerParameters,
        owner: str,
        *,
        continues: str | None = None,
    ) -> Message:
        """Another answer to a question, beside those it has; the conversation shows it.

        It is empty, or begins with the text of the answer that it `continues`, which stays as it
        is. Raises UnknownConversation, UnknownMessage, InvalidParameter for what is no question,
        AnswerComplete for an answer that ended by itself, and AnswerRunning.
        """
        with self._database.writing() as connection:
            owned(connection, user_id, conversation_id, lock=True)
            question = message_in(connection, conversation_id, question_id)
            if question.role != "user":
                raise InvalidParameter(
                    name=Phrase("question"), value=Phrase("an answer"), allowed=Phrase("a question")
                )
            begun = {}
            if continues is not None:
                earlier = message_in(connection, conversation_id, continues)
                if earlier.parent_id != question_id:
                    raise UnknownMessage(message_id=continues)
                require_continuable(earlier)
                begun = {"content": earlier.beginning, "continues": continues}
            return self._begin(connection, question, answer, owner, **begun)

    def write_answers(self, updates: Sequence[AnswerUpdate]) -> None:
        """Writes the present state of several answers in one transaction: all of them or none.

        The writer of an answer has the last word: one that was marked interrupted meanwhile,
        because the database was away for long, is taken up again.
        """
        if not updates:
            return
        now = self.now()
        rows = [{**asdict(update), "heartbeat_at": now} for update in updates]
        with self._database.writing(hurry=True) as connection:
            _, had_ended = _held(connection, [u.message_id for u in updates])
            _withdraw(connection, had_ended)
            connection.execute(_WRITE_ANSWER, rows)
            _enter(connection, [u.message_id for u in updates if u.status != "generating"])

    def mark_interrupted(self, owner_alive: Callable[[str], bool], stale_before: datetime) -> int:
        """Marks answers whose writer is dead or was last heard before `stale_before`.

        Their text stays. Returns how many. Writes nothing where there is nothing to mark.
        """
        running = select(messages.c.id, messages.c.owner, messages.c.heartbeat_at)
        with self._database.reading() as connection:
            rows = connection.execute(running.where(is_generating)).all()
        dead = [
            message_id
            for message_id, owner, heartbeat_at in rows
            if heartbeat_at < stale_before or not owner_alive(owner)
        ]
        return sum(self._interrupt(some) for some in in_batches(dead))

    def _interrupt(self, message_ids: Sequence[str]) -> int:
        with self._database.writing() as connection:
            still, _ = _held(connection, message_ids)
            these = update(messages).where(messages.c.id.in_(still))
            connection.execute(these.values(status="interrupted"))
            _enter(connection, still)
            return len(still)

    def _begin(
        self,
        connection: Connection,
        question: Message,
        answer: AnswerParameters,
        owner: str,
        *,
        content: str = "",
        continues: str | None = None,
    ) -> Message:
        now = self.now()
        begun = Message(
            **_place(connection, question.conversation_id, question, now),
            role="assistant",
            content=content,
            continues=continues,
            status="generating",
            **asdict(answer),
        )
        _insert(connection, begun, owner=owner, heartbeat_at=now)
        here = update(conversations).where(conversations.c.id == question.conversation_id)
        connection.execute(here.values(head_id=begun.id, updated_at=now))
        return begun


class _Place(TypedDict):
    id: str
    conversation_id: str
    parent_id: str | None
    seq: int
    turn: int
    branch: int
    created_at: datetime


def _place(
    connection: Connection, conversation_id: str, parent: Message | None, now: datetime
) -> _Place:
    """Where the next message below `parent` stands in its conversation."""
    here = messages.c.conversation_id == conversation_id
    parent_id = parent.id if parent else None
    last_seq = select(func.max(messages.c.seq)).where(here)
    last_branch = select(func.max(messages.c.branch)).where(
        here, messages.c.parent_id.is_not_distinct_from(parent_id)
    )
    return _Place(
        id=new_id(now),
        conversation_id=conversation_id,
        parent_id=parent_id,
        seq=(connection.scalar(last_seq) or 0) + 1,
        turn=parent.turn + (parent.role == "assistant") if parent else 1,
        branch=(connection.scalar(last_branch) or 0) + 1,
        created_at=now,
    )


def _insert(connection: Connection, message: Message, **more: object) -> None:
    connection.execute(insert(messages).values(**asdict(message), **more))


def _document(message: Message | Row[Any]) -> Document:
    return Document(message.conversation_id, message.seq, message.content)


def _held(connection: Connection, message_ids: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those of the messages that are being written, and those that have ended.

    All are held until the transaction ends, so that this stays true.
    """
    query = select(messages.c.id, messages.c.status).where(messages.c.id.in_(message_ids))
    rows = connection.execute(query.order_by(messages.c.id).with_for_update(key_share=True)).all()
    return (
        [row.id for row in rows if row.status == "generating"],
        [row.id for row in rows if row.status != "generating"],
    )


def _enter(connection: Connection, message_ids: Sequence[str]) -> None:
    """From now on these answers, which have ended, are searched and counted."""
    _account(connection, message_ids, index_of(connection).add, sign=1)


def _withdraw(connection: Connection, message_ids: Sequence[str]) -> None:
    """Takes back what `_enter` did; the rows are still those it saw."""
    _account(connection, message_ids, index_of(connection).remove, sign=-1)


def _account(
    connection: Connection,
    message_ids: Sequence[str],
    index: Callable[[Connection, Sequence[Document]], None],
    *,
    sign: int,
) -> None:
    by_user = _by_user(connection, message_ids)
    for rows in by_user.values():
        index(connection, [_document(row) for row in rows])
    for user_id, rows in by_user.items():  # behind all others: everybody waits for these rows
        add_usage(connection, user_id, [row._mapping for row in rows], sign=sign)


def _by_user(connection: Connection, message_ids: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The messages of each user, users in their order."""
    found: dict[str, list[Row[Any]]] = {}
    if message_ids:
        query = select(messages, conversations.c.user_id).join(conversations)
        in_order = query.where(messages.c.id.in_(message_ids)).order_by(
            conversations.c.user_id, messages.c.id
        )
        for row in connection.execute(in_order):
            found.setdefault(row.user_id, []).append(row)
    return found


_WRITE_ANSWER = update(messages).where(messages.c.id == bindparam("message_id"))
