"""A file, item by item: in which form each conversation is, and what it is read as."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, BinaryIO

import orjson

from glm_backend.errors import ConversationUnreadable, GLMError, InternalError, Phrase
from glm_backend.store.values import ImportedConversation
from glm_backend.transfer.chatgpt import is_chatgpt, read_chatgpt
from glm_backend.transfer.csv_import import read_csv, recognised
from glm_backend.transfer.draft import Draft
from glm_backend.transfer.json_items import Item, JsonItems
from glm_backend.transfer.librechat import is_librechat, read_librechat
from glm_backend.transfer.open_webui import is_open_webui, read_open_webui
from glm_backend.transfer.own_import import is_own, read_own
from glm_backend.transfer.storable import storable_values
from glm_backend.transfer.turns import (
    is_history,
    is_openai,
    is_sharegpt,
    is_turn,
    read_history,
    read_openai,
    read_sharegpt,
)

logger = logging.getLogger(__name__)

#: Forms of other programs: what recognises one and what reads it, asked in this order.
_FOREIGN: dict[str, tuple[Callable[[Any], bool], Callable[[Any], Draft]]] = {
    "chatgpt": (is_chatgpt, read_chatgpt),
    "open-webui": (is_open_webui, read_open_webui),
    "librechat": (is_librechat, read_librechat),
    "sharegpt": (is_sharegpt, read_sharegpt),
    "openai": (is_openai, read_openai),
    "history": (is_history, read_history),
}
#: What the command line and the routes take. json and jsonl are told apart by themselves.
IMPORT_FORMS = ("auto", "json", "jsonl", "csv", *_FOREIGN)

# NaN and infinite numbers are no JSON; what they stand for is missing.
_decode = json.JSONDecoder(parse_constant=lambda _: None).decode
# Quick, but it makes a float of a whole number that takes more than 64 bits.
_ALL_DIGITS_0, _MANY_DIGITS = bytes.maketrans(b"123456789", b"000000000"), b"0" * 19
_APART = timedelta(milliseconds=1)
_title_in = re.compile(rb'"title"\s*+:\s*+("(?:[^"\\\n]|\\.){0,400}")').search


@dataclass(slots=True)
class Candidate:
    """One conversation of a file: what is to be imported, or the error that it ended with.

    position: its place in the file, from 1. notes: what was changed or left behind in reading.
    """

    position: int
    title: str = ""
    form: str = ""
    conversation: ImportedConversation | None = None
    error: GLMError | None = None
    notes: list[Phrase] = field(default_factory=list)


class Candidates:
    """The conversations of one file, for one user. now: a moment before it, the first
    of the file the nearest, stands in where no time is known.

    form: one of IMPORT_FORMS. None of its items raises anything.
    """

    def __init__(self, file: BinaryIO, form: str, user_id: str, now: datetime) -> None:
        self._file = file
        self._form = form
        self._user_id = user_id
        self._now = now

    def __iter__(self) -> Iterator[Candidate]:
        self._file.seek(0)
        table = recognised(self._file) if self._form in ("auto", "csv") else None
        if table is not None:
            for position, (title, value) in enumerate(read_csv(self._file, table), 1):
                yield self._candidate(Candidate(position, title, "csv"), self._from_table, value)
            return
        for position, item in enumerate(JsonItems(self._file, is_turn), 1):
            yield self._candidate(Candidate(position), self._from_json, item)

    def _candidate(
        self, candidate: Candidate, read: Callable[[Candidate, Any], None], given: Any
    ) -> Candidate:
        try:
            read(candidate, given)
        except GLMError as error:
            # Without its frames: the report keeps errors, and frames would keep the texts.
            candidate.error = error.with_traceback(None)
            candidate.error.__context__ = None
        except RecursionError:
            candidate.error = _unreadable(Phrase("it is nested too deeply"))
        except Exception as error:
            logger.exception("conversation %s of an import failed", candidate.position)
            candidate.error = InternalError(message=type(error).__name__)
        return candidate

    def _from_table(self, candidate: Candidate, value: dict[str, Any] | GLMError) -> None:
        if isinstance(value, GLMError):
            raise value
        self._read(candidate, value, tidy=True)

    def _from_json(self, candidate: Candidate, item: Item) -> None:
        try:
            if item.trouble is not None:
                raise _unreadable(item.trouble)
            value, tidy = _parsed(item.text)
        except (ConversationUnreadable, RecursionError):
            title = _title_in(item.text, 0, 2**16)
            candidate.title = str(_parsed(title[1])[0]) if title else ""
            raise
        self._read(candidate, value, tidy=tidy)

    def _read(self, candidate: Candidate, value: Any, *, tidy: bool) -> None:
        if tidy:
            value, changed = storable_values(value)
            if changed:
                candidate.notes.append(
                    Phrase("{count} texts had characters that cannot be kept", count=changed)
                )
        if isinstance(value, dict) and isinstance(value.get("title"), str):
            candidate.title = value["title"]
        candidate.form = candidate.form or self._recognised(value)
        if candidate.form in _FOREIGN:
            draft = _FOREIGN[candidate.form][1](value)
            # What has no time is listed in the order of the file, as the latest comes first there.
            now = self._now - candidate.position * _APART
            candidate.conversation = draft.planted(self._user_id, now)
            candidate.notes += draft.notes
        else:
            candidate.conversation = read_own(value, self._user_id)

    def _recognised(self, value: Any) -> str:
        """The name of the form. Raises ConversationUnreadable for none, or another than named."""
        is_object = isinstance(value, dict)
        if self._form in ("auto", "json", "jsonl") and is_object and is_own(value):
            return "json"
        for name, (recognises, _) in _FOREIGN.items():
            asked = self._form in ("auto", name) and (is_object or name == "history")
            if asked and recognises(value):
                return name
        if self._form == "auto":
            raise _unreadable(Phrase("it has none of the forms that are known"))
        raise _unreadable(Phrase("it has not the form {form}", form=self._form))


def _parsed(text: bytes) -> tuple[Any, bool]:
    """The value, and whether texts in it may hold what cannot be kept (storable.py)."""
    if _MANY_DIGITS not in text.translate(_ALL_DIGITS_0):  # whole numbers stay whole
        with contextlib.suppress(orjson.JSONDecodeError):
            return orjson.loads(text), b"\\u0000" in text
    # Halves of surrogate pairs, NaN and very deep nesting are refused there, by the letter.
    try:
        return _decode(text.decode("utf-8", "surrogatepass")), True
    except UnicodeDecodeError:
        raise _unreadable(Phrase("it is no UTF-8")) from None
    except ValueError as error:
        raise _unreadable(Phrase("it is no JSON ({error})", error=str(error)[:200])) from None


def _unreadable(reason: Phrase) -> ConversationUnreadable:
    return ConversationUnreadable(reason=reason)
