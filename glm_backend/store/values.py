"""What the store hands out: frozen values, which know nothing of rows or of wire forms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Role = Literal["user", "assistant"]
Status = Literal["complete", "generating", "stopped", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation. `settings` override the user's own; `head_id` is the shown leaf."""

    id: str
    title: str
    settings: dict[str, object]
    head_id: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """One line of a list of conversations. Counts and names take in every branch.

    `preview` is the beginning of the message that the conversation shows last.
    """

    id: str
    title: str
    created_at: datetime
    updated_at: datetime
    message_count: int
    models: tuple[str, ...]
    quantizations: tuple[str, ...]
    preview: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the tree.

    seq: order of arrival within the conversation, from 1. turn: number of the question on its
    path, from 1; a question and its answers share it. branch: number among the children of one
    parent, from 1. Parameters and figures are those of an answer and None for a question;
    left_out: earlier messages that had no room in the context.
    """

    id: str
    conversation_id: str
    parent_id: str | None
    seq: int
    turn: int
    branch: int
    role: Role
    content: str
    status: Status
    created_at: datetime
    model: str | None = None
    quantization: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    system_prompt: str | None = None
    left_out: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    tokens_per_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    rating: int | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class AnswerParameters:
    """How an answer is made, kept with it. Names as in SamplingParams."""

    model: str
    quantization: str
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    max_new_tokens: int
    seed: int | None = None
    stop: tuple[str, ...] = ()
    system_prompt: str = ""
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class AnswerUpdate:
    """The state of one answer now: all of its text so far, and the figures once they are known.

    Times in milliseconds. A `status` other than generating ends the answer.
    """

    message_id: str
    content: str
    status: Status = "generating"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_ms: float | None = None
    duration_ms: float | None = None
    tokens_per_s: float | None = None
    finish_reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of generation parameters of one user."""

    name: str
    values: dict[str, object]
    created_at: datetime
