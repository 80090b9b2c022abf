"""Answers while they are made: begun before the first token, written as they grow, ended once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TypedDict

from sqlalchemy import Connection, bindparam, func, insert, select, update

from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.store.conversations import Room, in_batches, new_id, owned, title_from
from glm_backend.store.messages import message_in
from glm_backend.store.schema import conversations, is_generating, messages
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
        Raises UnknownConversation, UnknownMessage.
        """
        with self._database.writing() as connection:
            conversation = owned(connection, user_id, conversation_id, lock=True)
            parent = message_in(connection, conversation_id, parent_id) if parent_id else None
            place = _place(connection, conversation_id, parent)
            asked = Message(
                **place, role="user", content=question, status="complete", created_at=self.now()
            )
            _insert(connection, asked)
            title = conversation.title or title_from(question)
            return asked, self._begin(connection, asked, answer, owner, title=title)

    def begin_answer(
        self,
        user_id: str,
        conversation_id: str,
        question_id: str,
        answer: AnswerParameters,
        owner: str,
    ) -> Message:
        """Another empty answer to a question, beside those it has; the conversation shows it.

        Raises UnknownConversation, UnknownMessage, and InvalidParameter for what is no question.
        """
        with self._database.writing() as connection:
            owned(connection, user_id, conversation_id, lock=True)
            question = message_in(connection, conversation_id, question_id)
            if question.role != "user":
                raise InvalidParameter(
                    name=Phrase("question"), value=Phrase("an answer"), allowed=Phrase("a question")
                )
            return self._begin(connection, question, answer, owner)

    def write_answers(self, updates: Sequence[AnswerUpdate]) -> None:
        """Writes the present state of several answers in one transaction: all of them or none."""
        if not updates:
            return
        now = self.now()
        rows = [{**asdict(update), "heartbeat_at": now} for update in updates]
        with self._database.writing() as connection:
            connection.execute(_WRITE_ANSWER, rows)

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
        if not dead:
            return 0
        with self._database.writing() as connection:
            return sum(
                connection.execute(
                    update(messages)
                    .where(messages.c.id.in_(some), is_generating)
                    .values(status="interrupted")
                ).rowcount
                for some in in_batches(dead)
            )

    def _begin(
        self,
        connection: Connection,
        question: Message,
        answer: AnswerParameters,
        owner: str,
        **changes: object,
    ) -> Message:
        now = self.now()
        begun = Message(
            **_place(connection, question.conversation_id, question),
            role="assistant",
            content="",
            status="generating",
            created_at=now,
            **asdict(answer),
        )
        _insert(connection, begun, owner=owner, heartbeat_at=now)
        here = update(conversations).where(conversations.c.id == question.conversation_id)
        connection.execute(here.values(head_id=begun.id, updated_at=now, **changes))
        return begun


class _Place(TypedDict):
    id: str
    conversation_id: str
    parent_id: str | None
    seq: int
    turn: int
    branch: int


def _place(connection: Connection, conversation_id: str, parent: Message | None) -> _Place:
    """Where the next message below `parent` stands in its conversation."""
    here = messages.c.conversation_id == conversation_id
    parent_id = parent.id if parent else None
    last_seq = select(func.max(messages.c.seq)).where(here)
    last_branch = select(func.max(messages.c.branch)).where(
        here, messages.c.parent_id.is_not_distinct_from(parent_id)
    )
    return _Place(
        id=new_id(),
        conversation_id=conversation_id,
        parent_id=parent_id,
        seq=(connection.scalar(last_seq) or 0) + 1,
        turn=parent.turn + (parent.role == "assistant") if parent else 1,
        branch=(connection.scalar(last_branch) or 0) + 1,
    )


def _insert(connection: Connection, message: Message, **more: object) -> None:
    connection.execute(insert(messages).values(**asdict(message), **more))


_WRITE_ANSWER = update(messages).where(messages.c.id == bindparam("message_id"))
