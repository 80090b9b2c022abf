"""PostgreSQL's search index marks the rows of a text that needs several of them."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """From the fourth revision. Every row of the index is counted once."""
    if op.get_bind().dialect.name != "sqlite":
        op.execute(
            """
            UPDATE search_index SET tokens = tokens || array_to_tsvector(ARRAY[' '])
            WHERE (conversation_id, seq) IN (
                SELECT conversation_id, seq FROM search_index
                GROUP BY conversation_id, seq HAVING count(*) > 1)
            """
        )
