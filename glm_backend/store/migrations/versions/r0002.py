"""Pins, archive, tags, forks and continued answers; the search index; usage by day.

What is new and can be made from what is there (the index, usage) is made here, once.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from glm_backend.store.search_index import index_everything

revision = "0002"
down_revision = "0001"

_TIME = sa.String(27)
_ID = sa.String(32)


def upgrade() -> None:
    """From the first revision."""
    _extend_conversations()
    _extend_messages()
    _create_tags()
    _create_usage()
    op.execute(_USAGE_SO_FAR)
    if op.get_bind().dialect.name == "sqlite":
        for statement in _SQLITE_INDEX:
            op.execute(statement)
    else:
        for statement in _POSTGRESQL_INDEX:
            op.execute(statement)
    index_everything(op.get_bind())


def _extend_conversations() -> None:
    for column in (
        sa.Column("archived_at", _TIME),
        sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("source", sa.Text()),
        sa.Column("forked_from", _ID),
    ):
        op.add_column("conversations", column)
    op.drop_index("ix_conversations_user_id_updated_at", "conversations")
    op.create_index(
        "ix_conversations_listed",
        "conversations",
        ["user_id", "deleted_at", "archived_at", "pinned", "updated_at", "id"],
    )
    in_trash = sa.text("deleted_at IS NOT NULL")
    op.create_index(
        "ix_conversations_deleted_at",
        "conversations",
        ["deleted_at"],
        sqlite_where=in_trash,
        postgresql_where=in_trash,
    )


def _extend_messages() -> None:
    op.add_column("messages", sa.Column("continues", _ID))
    # The names in a list are read from the rows now: it cost every message more than it saved.
    op.drop_index("ix_messages_conversation_id_model", "messages")
    is_answer = sa.text("role = 'assistant'")
    op.create_index(
        "ix_messages_answers",
        "messages",
        ["model", "quantization", "status", "rating", "role", "conversation_id"],
        sqlite_where=is_answer,
        postgresql_where=is_answer,
    )


def _create_tags() -> None:
    op.create_table(
        "conversation_tags",
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "tag", name="pk_conversation_tags"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_conversation_tags_conversation_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_conversation_tags_tag", "conversation_tags", ["tag", "conversation_id"])


def _create_usage() -> None:
    counts = ("questions", "answers", "prompt_tokens", "completion_tokens", "timed_answers")
    ratings = ("rated_good", "rated_bad")
    op.create_table(
        "usage_days",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("quantization", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        *(sa.Column(name, sa.Float(), nullable=False) for name in ("tokens_per_s", "ttft_ms")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ratings),
        sa.PrimaryKeyConstraint("user_id", "day", "model", "quantization", name="pk_usage_days"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_usage_days_user_id", ondelete="CASCADE"
        ),
    )


# A question counts with the model that answered it first, as it does from now on.
_USAGE_SO_FAR = """
INSERT INTO usage_days
SELECT
    c.user_id,
    substr(m.created_at, 1, 10),
    coalesce(m.model, first.model, ''),
    coalesce(m.quantization, first.quantization, ''),
    sum(CASE WHEN m.role = 'user' THEN 1 ELSE 0 END),
    sum(CASE WHEN m.role = 'assistant' AND m.status <> 'generating' THEN 1 ELSE 0 END),
    coalesce(sum(m.prompt_tokens), 0),
    coalesce(sum(m.completion_tokens), 0),
    count(m.tokens_per_s),
    coalesce(sum(m.tokens_per_s), 0),
    coalesce(sum(CASE WHEN m.tokens_per_s IS NULL THEN 0 ELSE m.ttft_ms END), 0),
    sum(CASE WHEN m.rating > 0 THEN 1 ELSE 0 END),
    sum(CASE WHEN m.rating < 0 THEN 1 ELSE 0 END)
FROM messages AS m
JOIN conversations AS c ON c.id = m.conversation_id
LEFT JOIN messages AS first ON m.role = 'user' AND first.parent_id = m.id AND first.branch = 1
GROUP BY 1, 2, 3, 4
"""

# What a token is has been decided before (tokens.py): to FTS5 it is all that stands between spaces.
_NO_LETTERS = "".join(
    chr(c) for c in range(1, 128) if not chr(c).isalnum() and not chr(c).isspace()
)
_TOKEN_CHARACTERS = _NO_LETTERS.replace("'", "''").replace('"', '""')

# One row a message without its text. detail=none: which messages, not where in them. prefix=1: a
# single character is found at once, and not by adding up all tokens that begin with it. hashsize,
# automerge: bytes of tokens that are sorted in memory before they are written, and how many parts
# are merged at once; with FTS5's own (1 MB, 4) it takes half as long again to put a million in.
_SQLITE_INDEX = (
    """
    CREATE TABLE search_conversations (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation_id VARCHAR(32) NOT NULL UNIQUE
    )
    """,
    f"""
    CREATE VIRTUAL TABLE search_index USING fts5(
        tokens, content='', columnsize=0, detail=none, prefix=1,
        tokenize="ascii tokenchars '{_TOKEN_CHARACTERS}'"
    )
    """,
    "INSERT INTO search_index (search_index, rank) VALUES ('hashsize', 4194304), ('automerge', 8)",
)

_POSTGRESQL_INDEX = (
    """
    CREATE TABLE search_index (
        conversation_id VARCHAR(32) NOT NULL
            REFERENCES conversations (id) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        tokens TSVECTOR NOT NULL
    )
    """,
    "CREATE INDEX ix_search_index_conversation_id ON search_index (conversation_id, seq)",
    "CREATE INDEX ix_search_index_tokens ON search_index USING gin (tokens)",
)
