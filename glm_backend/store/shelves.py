"""Where a conversation is put: pinned, archived, tagged, in the trash; and erased from there.

Each of these takes many conversations, leaves those of others alone, and returns the ids that it
changed, so that it can be taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Update, delete, select, update

from glm_backend.store.conversations import Room, checked_tags, in_batches
from glm_backend.store.schema import conversation_tags, conversations, in_trash, messages
from glm_backend.store.search import EVERYTHING, matching
from glm_backend.store.search_index import index_of
from glm_backend.store.upserts import insert_new
from glm_backend.store.values import Reader

_c = conversations.c


class Shelves(Room):
    """Putting conversations away and bringing them back."""

    def pin(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Puts them before all others."""
        change = update(conversations).values(pinned=True)
        return self._change(user_id, conversation_ids, ~_c.pinned, change)

    def unpin(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Puts them back among the others."""
        change = update(conversations).values(pinned=False)
        return self._change(user_id, conversation_ids, _c.pinned, change)

    def archive(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Takes them out of the everyday list; they are found and exported as before."""
        change = update(conversations).values(archived_at=self.now())
        return self._change(user_id, conversation_ids, _c.archived_at.is_(None), change)

    def unarchive(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Brings them back into the everyday list."""
        change = update(conversations).values(archived_at=None)
        return self._change(user_id, conversation_ids, _c.archived_at.is_not(None), change)

    def delete(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Puts them into the trash, which hides them everywhere else. Nothing is erased."""
        change = update(conversations).values(deleted_at=self.now())
        return self._change(user_id, conversation_ids, ~in_trash, change)

    def is_trashed(self, user_id: str, conversation_id: str) -> bool:
        """Whether it is in the trash."""
        mine = (_c.id == conversation_id) & (_c.user_id == user_id)
        with self._database.reading() as connection:
            return connection.scalar(select(_c.id).where(mine, in_trash)) is not None

    def restore(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Takes them out of the trash, as they were."""
        change = update(conversations).values(deleted_at=None)
        return self._change(user_id, conversation_ids, in_trash, change)

    def tag(self, user_id: str, conversation_ids: Sequence[str], tag: str) -> list[str]:
        """Gives them a tag of 1 to 50 characters. Raises InvalidParameter."""
        (tag,) = checked_tags([tag])
        tagged = select(conversation_tags.c.conversation_id).where(conversation_tags.c.tag == tag)
        with self._database.writing() as connection:
            new = _mine(connection, user_id, conversation_ids, ~in_trash & _c.id.not_in(tagged))
            for each in new:  # another may have been quicker
                insert_new(connection, conversation_tags, {"conversation_id": each, "tag": tag})
        return new

    def untag(self, user_id: str, conversation_ids: Sequence[str], tag: str) -> list[str]:
        """Takes a tag off them."""
        its = conversation_tags.c
        tagged = select(its.conversation_id).where(its.tag == tag)
        with self._database.writing() as connection:
            old = _mine(connection, user_id, conversation_ids, ~in_trash & _c.id.in_(tagged))
            for some in in_batches(old):
                these = (its.tag == tag, its.conversation_id.in_(some))
                connection.execute(delete(conversation_tags).where(*these))
        return old

    def tags_used(self, user_id: Reader) -> list[str]:
        """The tags of conversations that are not in the trash, by name."""
        # First the tags, then one conversation for each: not every conversation that has one.
        every = select(conversation_tags.c.tag).distinct().subquery()
        tagged = select(conversation_tags).join(conversations).correlate(every)
        with self._database.reading() as connection:
            mine = matching(connection, user_id, EVERYTHING)
            one = tagged.where(conversation_tags.c.tag == every.c.tag, *mine).exists()
            return sorted(connection.scalars(select(every.c.tag).where(one)))

    def erase(self, user_id: str, conversation_ids: Sequence[str]) -> list[str]:
        """Erases those that are in the trash for good: texts, ratings, and what finds them."""
        with self._database.writing() as connection:
            mine = _mine(connection, user_id, conversation_ids, in_trash)
        return [each for each in mine if self._erase(each, in_trash)]

    def erase_deleted_before(self, time: datetime, *, at_most: int) -> int:
        """Erases what went into the trash before that time, whoever's it is; returns how many."""
        old = in_trash & (_c.deleted_at < time)
        query = select(_c.id).where(old).order_by(_c.deleted_at).limit(at_most)
        with self._database.reading() as connection:
            ids = connection.scalars(query).all()
        return sum(self._erase(each, old) for each in ids)

    def _erase(self, conversation_id: str, still: ColumnElement[bool]) -> bool:
        """One conversation a transaction, so that nobody waits long; False if it was restored."""
        here = messages.c.conversation_id == conversation_id
        this = select(_c.id).where(_c.id == conversation_id, still).with_for_update()
        with self._database.writing() as connection:
            if connection.scalar(this) is None:
                return False
            index_of(connection).erase(connection, conversation_id)
            # Without parents first: to erase a child with its parent is a recursion, which SQLite
            # ends with an error at a thousand messages.
            connection.execute(update(messages).where(here).values(parent_id=None))
            connection.execute(delete(messages).where(here))
            connection.execute(delete(conversations).where(_c.id == conversation_id))
        return True

    def _change(
        self,
        user_id: str,
        conversation_ids: Sequence[str],
        condition: ColumnElement[bool],
        change: Update,
    ) -> list[str]:
        with self._database.writing() as connection:
            changed = _mine(connection, user_id, conversation_ids, condition)
            for some in in_batches(changed):
                connection.execute(change.where(_c.id.in_(some)))
        return changed


def _mine(
    connection: Connection,
    user_id: str,
    conversation_ids: Sequence[str],
    condition: ColumnElement[bool],
) -> list[str]:
    """Those of the user's conversations that fulfil the condition, held for a change."""
    query = select(_c.id).where(_c.user_id == user_id, condition).order_by(_c.id)
    return [
        found
        for some in in_batches(sorted(set(conversation_ids)))
        for found in connection.scalars(query.where(_c.id.in_(some)).with_for_update())
    ]
