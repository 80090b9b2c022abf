"""Conversations as JSON has them, made by chance: any text, any tree, every field."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from glm_backend.readable import storable
from glm_backend.store.columns import timestamp_text

#: Stretches of characters, each as likely as the others.
_ALPHABETS: tuple[tuple[int, int], ...] = (
    (0x20, 0x7E),  # ASCII
    (0x00, 0x1F),  # controls, NUL among them
    (0x4E00, 0x9FFF),  # Chinese
    (0x1F300, 0x1FAFF),  # pictures
    (0xD800, 0xDFFF),  # halves of pairs
    (0x2000, 0x206F),  # marks that order and part lines
    (0xFE00, 0xFFFF),  # forms, the byte order mark, no characters
    (0x10000, 0x10FFFF),
)
_NASTY = ('"', "'", "\\", "\r\n", "=1+1", "]}", "},{", '{"id":"', "\u2028", ",", "\ud83d", "")
_AGES = timedelta(days=3_650_000, hours=23, minutes=59, seconds=59, microseconds=999_999)
_FLOATS = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty")
_MEASURED = ("ttft_ms", "duration_ms", "tokens_per_s")
_INTEGERS = ("top_k", "max_new_tokens", "left_out", "prompt_tokens", "completion_tokens")
_TEXTS = ("model", "quantization", "system_prompt", "finish_reason", "error", "comment")
_STATUSES = ("complete", "generating", "stopped", "failed", "interrupted")


def conversations(chance: random.Random, how_many: int) -> list[dict[str, Any]]:
    """So many conversations, each id once."""
    numbers = itertools.count()
    return [_conversation(chance, numbers) for _ in range(how_many)]


def _tags(chance: random.Random) -> list[str]:
    """Some that stay different ones when they are kept: halves of pairs become one character."""
    lines = [_line(chance, 20) for _ in range(chance.randrange(3))]
    return sorted({storable(line): line for line in lines if line}.values())


def _conversation(chance: random.Random, numbers: Iterator[int]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for _ in range(chance.choice((0, 1, 2, 4, 9))):
        messages.append(_message(chance, numbers, messages))
    ids = [message["message_id"] for message in messages]
    return {
        "id": _id(numbers),
        "title": _line(chance, 200),
        "user": "local",
        "created_at": _time(chance),
        "updated_at": _time(chance),
        "tags": _tags(chance),
        "settings": {text(chance): _value(chance, 3) for _ in range(chance.randrange(3))},
        "head_id": chance.choice(ids) if ids else None,
        "pinned": chance.random() < 0.5,
        "archived_at": _or_none(chance, _time(chance)),
        "source": _or_none(chance, "chatgpt"),
        "forked_from": _or_none(chance, _id(numbers)),
        "messages": messages,
    }


def text(chance: random.Random) -> str:
    """A text of up to some twenty characters of one kind, or something nasty."""
    if chance.random() < 0.2:
        return chance.choice(_NASTY)
    low, high = chance.choice(_ALPHABETS)
    return "".join(chr(chance.randint(low, high)) for _ in range(chance.randrange(20)))


def _message(
    chance: random.Random, numbers: Iterator[int], before: list[dict[str, Any]]
) -> dict[str, Any]:
    parent = chance.choice([None, *before[-3:]])
    siblings = [m for m in before if m["parent_id"] == (parent and parent["message_id"])]
    message: dict[str, Any] = {
        "message_id": _id(numbers),
        "parent_id": parent and parent["message_id"],
        "turn": parent["turn"] + (parent["role"] == "assistant") if parent else 1,
        "branch": len(siblings) + 1,
        "role": chance.choice(("user", "assistant")),
        "content": text(chance),
        "status": chance.choice(_STATUSES),
        "created_at": _time(chance),
        "seed": _or_none(chance, chance.randrange(2**63)),
        "stop": _or_none(chance, [text(chance) for _ in range(chance.randrange(3))]),
        "rating": chance.choice((None, 1, -1)),
        "continues": _or_none(chance, _id(numbers)),
    }
    message |= {name: _or_none(chance, text(chance)) for name in _TEXTS}
    message |= {name: _or_none(chance, _float(chance)) for name in _FLOATS}
    message |= {name: _or_none(chance, min(_float(chance), 1e12)) for name in _MEASURED}
    message |= {name: _or_none(chance, chance.randrange(2**31)) for name in _INTEGERS}
    return message


def _value(chance: random.Random, depth: int) -> Any:
    if depth and chance.random() < 0.3:
        return [_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    if depth and chance.random() < 0.3:
        return {text(chance): _value(chance, depth - 1) for _ in range(chance.randrange(3))}
    return chance.choice((None, True, chance.randint(-(2**200), 2**200), _float(chance), "x"))


def _float(chance: random.Random) -> float:
    return chance.choice((0.0, 1.0, 0.1, 1e-300, 1.7e308, chance.random(), chance.random() * 1e20))


def _time(chance: random.Random) -> str:
    return timestamp_text(datetime(1, 1, 1, tzinfo=UTC) + _AGES * chance.random())


def _id(numbers: Iterator[int]) -> str:
    return hashlib.md5(str(next(numbers)).encode(), usedforsecurity=False).hexdigest()


def _line(chance: random.Random, characters: int) -> str:
    return " ".join(text(chance).split())[:characters].strip()


def _or_none(chance: random.Random, value: Any) -> Any:
    return chance.choice((value, None))
