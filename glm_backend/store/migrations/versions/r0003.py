"""min_p and typical_p of an answer; those of older ones are not known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From the second revision."""
    op.add_column("messages", sa.Column("min_p", sa.Float()))
    op.add_column("messages", sa.Column("typical_p", sa.Float()))
