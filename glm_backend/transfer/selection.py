"""Which conversations are meant, and how the command line and the routes say it: in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, get_args

from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.store import ConversationFilter
from glm_backend.store.values import Status


@dataclass(frozen=True, slots=True)
class Selection:
    """Which conversations, and how much of each; the default is everything.

    conversation_ids, filter: only these. shown_only: only the branch that is shown; None leaves
    it to the form, and all but the linear ones hold every branch.
    """

    conversation_ids: Sequence[str] | None = None
    filter: ConversationFilter = field(default_factory=ConversationFilter)
    shown_only: bool | None = None

    @classmethod
    def from_words(cls, words: Mapping[str, Sequence[str]]) -> Selection:
        """Reads `conversation` (any number), `branch`, and the names of FILTER_WORDS (one each).

        Raises InvalidParameter for a name or a value that is not known.
        """
        for name, values in words.items():
            if name not in SELECTION_WORDS:
                allowed = Phrase("one of {names}", names=", ".join(SELECTION_WORDS))
                raise InvalidParameter(name=Phrase("parameter"), value=repr(name), allowed=allowed)
            if name != "conversation" and len(values) != 1:
                many = Phrase("given {count} times", count=len(values))
                raise InvalidParameter(name=name, value=many, allowed=Phrase("given once"))
        one = {name: values[0] for name, values in words.items() if name != "conversation"}
        branch = one.pop("branch", None)
        return cls(
            list(words["conversation"]) if "conversation" in words else None,
            ConversationFilter(**{name: FILTER_WORDS[name](name, one[name]) for name in one}),
            None if branch is None else _branch("branch", branch),
        )


_lost_plus = re.compile(r"(:\d\d(?:\.\d+)?) (\d\d:?\d\d)$")


def _text(name: str, word: str) -> str:
    return word


def _time(name: str, word: str) -> datetime:
    try:
        # In an address a plus that was not written as %2B has become a space.
        time = datetime.fromisoformat(_lost_plus.sub(r"\1+\2", word))
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        allowed = Phrase("a date or a time as in 2026-11-24 or 2026-11-24T01:50:00+08:00")
        raise InvalidParameter(name=name, value=repr(word[:40]), allowed=allowed) from None


def _choice(choices: Mapping[str, Any]) -> Callable[[str, str], Any]:
    def read(name: str, word: str) -> Any:
        if word.lower() not in choices:
            allowed = Phrase("one of {names}", names=", ".join(choices))
            raise InvalidParameter(name=name, value=repr(word[:40]), allowed=allowed)
        return choices[word.lower()]

    return read


_yes_no = _choice({"true": True, "false": False, "1": True, "0": False})
_branch = _choice({"all": False, "shown": True})

#: Of the store's filter: what it calls a thing, and what reads its value.
FILTER_WORDS: dict[str, Callable[[str, str], Any]] = {
    "text": _text,
    "since": _time,
    "until": _time,
    "model": _text,
    "quantization": _text,
    "status": _choice({status: status for status in get_args(Status)}),
    "rating": _choice({"1": 1, "-1": -1}),
    "tag": _text,
    "pinned": _yes_no,
    "archived": _yes_no,
    "trash": _yes_no,
}
SELECTION_WORDS = ("conversation", "branch", *FILTER_WORDS)
