"""What a user's answers have cost so far, by model and precision."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from glm_backend.store.conversations import Room
from glm_backend.store.schema import conversations, messages


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one model answered at one precision: means over `answers` answers."""

    model: str
    quantization: str
    answers: int
    tokens_per_s: float
    ttft_ms: float


class Usage(Room):
    """Figures over all of a user's answers, those of deleted conversations included."""

    def speeds(self, user_id: str) -> list[Speed]:
        """One entry for each model and precision that has answered, by name."""
        kind = (messages.c.model, messages.c.quantization)
        query = (
            select(
                *kind,
                func.count(),
                func.avg(messages.c.tokens_per_s),
                func.avg(messages.c.ttft_ms),
            )
            .join(conversations)
            .where(conversations.c.user_id == user_id, messages.c.tokens_per_s.is_not(None))
            .group_by(*kind)
            .order_by(*kind)
        )
        with self._database.reading() as connection:
            return [Speed(*row) for row in connection.execute(query)]
