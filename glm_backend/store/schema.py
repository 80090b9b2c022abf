"""The tables as they are today. What led here, step by step, is in migrations/."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    false,
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

_ID_LENGTH = 32  # hexadecimal digits, see new_id: nobody guesses another user's

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
    # In the trash since then; erased for good some days later.
    Column("deleted_at", Timestamp),
    Column("archived_at", Timestamp),
    Column("pinned", Boolean, nullable=False, server_default=false()),
    # The form it was imported from, and the message it was forked at: ids and names, no keys,
    # because what they name may be erased.
    Column("source", PlainText),
    Column("forked_from", String(_ID_LENGTH)),
    # A list in its order, and its count, from the index alone.
    Index(
        "ix_conversations_listed",
        "user_id",
        "deleted_at",
        "archived_at",
        "pinned",
        "updated_at",
        "id",
    ),
)

in_trash = conversations.c.deleted_at.is_not(None)
Index(
    "ix_conversations_deleted_at",
    conversations.c.deleted_at,
    sqlite_where=in_trash,
    postgresql_where=in_trash,
)

conversation_tags = Table(
    "conversation_tags",
    metadata,
    Column("conversation_id", ForeignKey("conversations.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", PlainText, primary_key=True),
    Index("ix_conversation_tags_tag", "tag", "conversation_id"),
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
    # The version of the same answer whose text this one begins with. No key, as head_id.
    Column("continues", String(_ID_LENGTH)),
    Column("min_p", Float),
    Column("typical_p", Float),
    UniqueConstraint("conversation_id", "seq"),
    Index("ix_messages_parent_id", "parent_id"),
)

#: Written as a literal: a planner takes the partial index only when it sees the value.
is_generating = messages.c.status == literal_column("'generating'")
Index(
    "ix_messages_generating",
    messages.c.owner,
    sqlite_where=is_generating,
    postgresql_where=is_generating,
)

#: Covers every filter that is about answers: none of them touches the text.
is_answer = messages.c.role == literal_column("'assistant'")
Index(
    "ix_messages_answers",
    messages.c.model,
    messages.c.quantization,
    messages.c.status,
    messages.c.rating,
    messages.c.role,  # asked for as well, and an index covers only what it has
    messages.c.conversation_id,
    sqlite_where=is_answer,
    postgresql_where=is_answer,
)

#: What was used by whom, when and with which model: sums, kept up while it happens, so that a
#: chart needs no look at the messages. Days are those of UTC; models that are not known are "".
usage_days = Table(
    "usage_days",
    metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("model", PlainText, primary_key=True),
    Column("quantization", PlainText, primary_key=True),
    Column("questions", BigInteger, nullable=False),
    Column("answers", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    # Answers whose speed is known, and the sums over these.
    Column("timed_answers", BigInteger, nullable=False),
    Column("tokens_per_s", Float, nullable=False),
    Column("ttft_ms", Float, nullable=False),
    Column("rated_good", BigInteger, nullable=False),
    Column("rated_bad", BigInteger, nullable=False),
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
