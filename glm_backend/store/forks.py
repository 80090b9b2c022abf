"""A conversation begun anew from a place in another one."""

from __future__ import annotations

from dataclasses import asdict, replace

from sqlalchemy import insert

from glm_backend.errors import AnswerRunning
from glm_backend.store.conversations import (
    Room,
    insert_conversation,
    new_id,
    owned_conversation,
)
from glm_backend.store.messages import path_to
from glm_backend.store.schema import messages
from glm_backend.store.search_index import Document, index_of
from glm_backend.store.values import Conversation, Message


class Forks(Room):
    """Copying the way to a message into a conversation of its own."""

    def fork_conversation(
        self, user_id: str, conversation_id: str, message_id: str
    ) -> Conversation:
        """A new conversation with copies of the messages down to this one; nothing else changes.

        The copies have ids of their own and keep texts, figures and times; a rating and its comment
        stay with the answer that they were given to. `forked_from` names the message. Raises
        UnknownConversation, UnknownMessage, and AnswerRunning while one of the messages is being
        written.
        """
        now = self.now()
        with self._database.writing() as connection:
            origin = owned_conversation(connection, user_id, conversation_id)
            path = path_to(connection, conversation_id, message_id)
            if any(message.status == "generating" for message in path):
                raise AnswerRunning()
            fork = replace(
                origin,
                id=new_id(now),
                created_at=now,
                updated_at=now,
                pinned=False,
                archived_at=None,
                source=None,
                forked_from=message_id,
            )
            copies = _copies(path, fork.id, [new_id(now) for _ in path])
            fork = replace(fork, head_id=copies[-1].id)
            insert_conversation(connection, user_id, fork)
            connection.execute(insert(messages), [asdict(copy) for copy in copies])
            texts = [Document(fork.id, copy.seq, copy.content) for copy in copies]
            index_of(connection).add(connection, texts)
        return fork


def _copies(path: list[Message], conversation_id: str, ids: list[str]) -> list[Message]:
    """The messages of a path as a conversation without branches."""
    parents = [None, *ids[:-1]]
    return [
        replace(
            message,
            id=new,
            conversation_id=conversation_id,
            parent_id=parent,
            seq=seq,
            branch=1,
            rating=None,
            comment=None,
        )
        for seq, (message, new, parent) in enumerate(zip(path, ids, parents, strict=True), 1)
    ]
