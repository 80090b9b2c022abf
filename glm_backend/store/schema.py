"""The tables as they are today. What led here, step by step, is in migrations/."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    literal_column,
)

from glm_backend.store.columns import Json, PlainText, Timestamp

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID_LENGTH = 32  # uuid4 as hex: nobody guesses another user's

users = Table(
    "users",
    metadata,
    Column("id", String(_ID_LENGTH), primary_key=True),
    Column("name", PlainText, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    UniqueConstraint("name"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(_ID_LENGTH), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("title", PlainText, nullable=False),
    Column("settings", Json, nullable=False),
    # The leaf of the branch that is shown. No foreign key: it would close a circle with messages.
    Column("head_id", String(_ID_LENGTH)),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("deleted_at", Timestamp),
    Index("ix_conversations_user_id_updated_at", "user_id", "updated_at", "id"),
)

messages = Table(
    "messages",
    metadata,
    Column("id", String(_ID_LENGTH), primary_key=True),
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False),
    Column("parent_id", ForeignKey("messages.id", ondelete="CASCADE")),
    Column("seq", Integer, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("branch", Integer, nullable=False),
    Column("role", PlainText, nullable=False),
    Column("status", PlainText, nullable=False),
    Column("model", PlainText),
    Column("quantization", PlainText),
    Column("temperature", Float),
    Column("top_p", Float),
    Column("top_k", Integer),
    Column("repetition_penalty", Float),
    Column("max_new_tokens", Integer),
    Column("seed", BigInteger),
    Column("stop", Json),
    Column("left_out", Integer),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("ttft_ms", Float),
    Column("duration_ms", Float),
    Column("tokens_per_s", Float),
    Column("finish_reason", PlainText),
    Column("error", PlainText),
    Column("rating", Integer),
    Column("comment", PlainText),
    Column("owner", PlainText),
    Column("heartbeat_at", Timestamp),
    Column("created_at", Timestamp, nullable=False),
    # The long ones last: SQLite walks over their pages to reach a column behind them.
    Column("system_prompt", PlainText),
    Column("content", PlainText, nullable=False),
    UniqueConstraint("conversation_id", "seq"),
    Index("ix_messages_parent_id", "parent_id"),
    # Covers the counts and model names of the list without touching the text.
    Index("ix_messages_conversation_id_model", "conversation_id", "model", "quantization"),
)

#: Written as a literal: a planner takes the partial index only when it sees the value.
is_generating = messages.c.status == literal_column("'generating'")
Index(
    "ix_messages_generating",
    messages.c.owner,
    sqlite_where=is_generating,
    postgresql_where=is_generating,
)

user_settings = Table(
    "user_settings",
    metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", PlainText, primary_key=True),
    Column("value", Json, nullable=False),
)

presets = Table(
    "presets",
    metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("name", PlainText, primary_key=True),
    Column("parameters", Json, nullable=False),
    Column("created_at", Timestamp, nullable=False),
)
