"""What people think of an answer."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from sqlalchemy import select, update

from glm_backend.errors import InvalidParameter, Phrase, UnknownMessage
from glm_backend.store.conversations import Room, owned
from glm_backend.store.schema import messages
from glm_backend.store.usage import add_ratings

_COMMENT_CHARACTERS = 4000

Rating = Literal[1, -1]


class Unchanged(Enum):
    """Says that a value stays as it is."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


class Ratings(Room):
    """Ratings with comments, of answers in one's own conversations."""

    def rate(
        self,
        user_id: str,
        conversation_id: str,
        answer_id: str,
        rating: Rating | Unchanged | None = UNCHANGED,
        comment: str | Unchanged | None = UNCHANGED,
    ) -> None:
        """Says that an answer is good (1) or bad (-1), or why; None takes it back.

        What is not given stays: two pages may each give one.

        Raises UnknownConversation, UnknownMessage, and InvalidParameter for a question, another
        rating, or a comment of more than 4,000 characters.
        """
        if rating not in (None, 1, -1, UNCHANGED):
            allowed = Phrase("one of {names}", names="1, -1")
            raise InvalidParameter(name="rating", value=repr(rating), allowed=allowed)
        if isinstance(comment, str) and len(comment) > _COMMENT_CHARACTERS:
            allowed = Phrase("a text of at most {limit} characters", limit=_COMMENT_CHARACTERS)
            raise InvalidParameter(name="comment", value=Phrase("too long"), allowed=allowed)
        here = (messages.c.id == answer_id, messages.c.conversation_id == conversation_id)
        kept = (messages.c.role, messages.c.status, messages.c.rating, messages.c.created_at)
        kind = (messages.c.model, messages.c.quantization)
        with self._database.writing() as connection:
            owned(connection, user_id, conversation_id, lock=True)
            # Held, so that it does not end between here and there: then nobody would count it.
            query = select(*kept, *kind).where(*here).with_for_update(key_share=True)
            answer = connection.execute(query).one_or_none()
            if answer is None:
                raise UnknownMessage(message_id=answer_id)
            if answer.role != "assistant":
                raise InvalidParameter(
                    name=Phrase("answer"), value=Phrase("a question"), allowed=Phrase("an answer")
                )
            values: dict[str, object] = {}
            if not isinstance(comment, Unchanged):
                values["comment"] = comment or None
            if not isinstance(rating, Unchanged):
                values["rating"] = rating
                if answer.status != "generating":  # else it counts with the answer, when that ends
                    row = answer._mapping
                    add_ratings(connection, user_id, row, taken=answer.rating, given=rating)
            if values:
                connection.execute(update(messages).where(*here).values(**values))
