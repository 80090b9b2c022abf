"""What the store hands out: frozen values, which know nothing of rows or of wire forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Literal, NotRequired, TypedDict

from glm_backend.errors import GLMError

Role = Literal["user", "assistant"]
Status = Literal["complete", "generating", "stopped", "failed", "interrupted"]


class Everybody(Enum):
    """Stands where a user's id is expected, for an administrator who reads what all have.

    A value of its own, so that no id that comes from outside can ever mean it.
    """

    EVERYBODY = "everybody"


#: Whose conversations are read: those of the user of this id, or everybody's.
Reader = str | Everybody


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation. `settings` override the user's own; `head_id` is the shown leaf.

    source: the form it was imported from. forked_from: the message, of another conversation, at
    which it was forked. tags: by name.
    """

    id: str
    title: str
    settings: dict[str, object]
    head_id: str | None
    created_at: datetime
    updated_at: datetime
    pinned: bool = False
    archived_at: datetime | None = None
    source: str | None = None
    forked_from: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """One line of a list of conversations. Counts and names take in every branch.

    user: the name of whose it is. preview: the beginning of the message that is shown last; in a
    search, the surroundings of what was found. hit_id: the message it was found in, None for the
    title.
    """

    id: str
    title: str
    user: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    archived_at: datetime | None
    pinned: bool
    tags: tuple[str, ...]
    message_count: int
    models: tuple[str, ...]
    quantizations: tuple[str, ...]
    preview: str
    hit_id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the tree.

    seq: order of arrival within the conversation, from 1. turn: number of the question on its
    path, from 1; a question and its answers share it. branch: number among the children of one
    parent, from 1. Parameters and figures are those of an answer and None for a question;
    left_out: earlier messages that had no room in the context. rating: 1 good, -1 bad.
    continues: the version of the same answer whose text this one begins with.
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
    min_p: float | None = None
    typical_p: float | None = None
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
    continues: str | None = None

    @property
    def can_be_continued(self) -> bool:
        """True for an answer that did not end by itself but was stopped, cut off or too long."""
        cut_off = self.status in ("stopped", "interrupted", "failed")
        return self.role == "assistant" and (cut_off or self.finish_reason == "length")

    @property
    def beginning(self) -> str:
        """The text that a continuation begins with: without a character that was half there."""
        return self.content.rstrip("\N{REPLACEMENT CHARACTER}")


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
    min_p: float = 0.0
    typical_p: float = 1.0
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


class ImportedMessage(TypedDict):
    """One message to be imported: fields as in Message, of which None may be left out.

    ids: 32 hex digits. parent_id: a message that stands before this one, or None. Texts without
    NUL and lone surrogates, of 200 characters at most for model and quantization; times with a
    zone; finite numbers, from 0 to 10**12 for what was measured; whole numbers from 0 of 31 bits
    (seed: 63).
    """

    id: str
    parent_id: str | None
    role: Role
    content: str
    status: Status
    created_at: datetime
    model: NotRequired[str | None]
    quantization: NotRequired[str | None]
    temperature: NotRequired[float | None]
    top_p: NotRequired[float | None]
    top_k: NotRequired[int | None]
    min_p: NotRequired[float | None]
    typical_p: NotRequired[float | None]
    repetition_penalty: NotRequired[float | None]
    max_new_tokens: NotRequired[int | None]
    seed: NotRequired[int | None]
    stop: NotRequired[Sequence[str] | None]
    system_prompt: NotRequired[str | None]
    left_out: NotRequired[int | None]
    prompt_tokens: NotRequired[int | None]
    completion_tokens: NotRequired[int | None]
    ttft_ms: NotRequired[float | None]
    duration_ms: NotRequired[float | None]
    tokens_per_s: NotRequired[float | None]
    finish_reason: NotRequired[str | None]
    error: NotRequired[str | None]
    rating: NotRequired[int | None]
    comment: NotRequired[str | None]
    continues: NotRequired[str | None]


@dataclass(frozen=True, slots=True)
class ImportedConversation:
    """One conversation to be imported, its messages in the order in which they arrived.

    title: at most 200 characters, white space is tidied; empty for none. head_id: None takes the
    last message. source: the name of a foreign form; None for one of our own. Tags are tidied and
    sorted. Fields otherwise as in Conversation.
    """

    id: str
    title: str
    created_at: datetime
    updated_at: datetime
    messages: Sequence[ImportedMessage]
    settings: Mapping[str, object] = field(default_factory=dict)
    head_id: str | None = None
    pinned: bool = False
    archived_at: datetime | None = None
    source: str | None = None
    forked_from: str | None = None
    tags: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What became of one conversation. id: under which it is in the store (empty: refused)."""

    state: Literal["imported", "known", "trash", "refused"]
    id: str = ""
    messages: int = 0
    error: GLMError | None = None


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of generation parameters of one user."""

    name: str
    values: dict[str, object]
    created_at: datetime
