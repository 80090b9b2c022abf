"""Version 1 of the wire form: the names and the order of what is exported.

Everything here is public and described in docs/exports.md.
"""

from __future__ import annotations

FORMAT = "glm-chat"
VERSION = 1

CSV_COLUMNS = (
    "conversation_id",
    "conversation_title",
    "user",
    "message_id",
    "parent_id",
    "turn",
    "branch",
    "role",
    "content",
    "status",
    "model",
    "quantization",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "max_new_tokens",
    "seed",
    "system_prompt",
    "prompt_tokens",
    "completion_tokens",
    "ttft_ms",
    "duration_ms",
    "tokens_per_s",
    "finish_reason",
    "error",
    "rating",
    "comment",
    "created_at",
)

#: Columns of the CSV that say something of the whole conversation, by the names that JSON has.
OF_CONVERSATION = {"conversation_id": "id", "conversation_title": "title", "user": "user"}

#: Of a message in JSON: what CSV says of it, and what only a program wants back.
MESSAGE_FIELDS = (
    *CSV_COLUMNS[len(OF_CONVERSATION) :],
    "stop",
    "left_out",
    "continues",
    "min_p",
    "typical_p",
)
