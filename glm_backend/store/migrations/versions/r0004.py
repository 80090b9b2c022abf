"""Parts of SQLite's search index are merged sixteen at once, no longer eight."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From the third revision.

    Putting a million messages into the index takes a sixth less of the processor, and searching is
    as quick: 20 parts either way.
    """
    if op.get_bind().dialect.name == "sqlite":
        op.execute("INSERT INTO search_index (search_index, rank) VALUES ('automerge', 16)")
