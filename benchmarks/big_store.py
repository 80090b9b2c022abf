"""A history at size: 100,000 conversations, 1,000,000 messages, the same in every run.

Made once and kept in .cache/benchmarks; what changes it works on a copy.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from glm_backend.store import ImportedConversation, ImportedMessage, Store
from glm_backend.store.schema import metadata

CONVERSATIONS = 100_000
TURNS = 5  # of a question and an answer: ten messages a conversation
USER = "local"
RARE = "zyzzogeton"  # stands in one conversation of 5,000

_CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks"
_BEGAN = datetime(2024, 11, 1, 8, tzinfo=UTC)
_MODELS = ("chatglm3-6b",) * 5 + ("chatglm2-6b",) * 3 + ("glm-4-9b-chat",)
_STATUSES = ("complete",) * 97 + ("stopped", "interrupted", "failed")
_TAGS = ("work", "code", "translation", "季度报告", "ideas", "later")


def big_store(conversations: int = CONVERSATIONS) -> Path:
    """The file of a database with so many conversations of USER, made at need."""
    columns = sum(len(table.columns) for table in metadata.tables.values())
    file = _CACHE / f"history-{conversations}-{columns}.sqlite3"
    if not file.is_file():
        print(f"making {file.name} ...", file=sys.stderr, flush=True)
        _CACHE.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        store = Store.open(f"sqlite:///{partial}")
        user = store.ensure_user(USER)
        for outcome in store.import_conversations(user, _conversations(conversations)):
            assert outcome.state == "imported"
        store.close()
        partial.rename(file)
    return file


def copy_of(file: Path, folder: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copy(file, folder / file.name))


def _conversations(count: int) -> Iterator[ImportedConversation]:
    rng = random.Random(6)
    texts = _Texts(rng)
    for number in range(count):
        began = _BEGAN + timedelta(minutes=number * 10, microseconds=rng.randrange(10**6))
        messages = list(_messages(rng, texts, began))
        if number % 5000 == 77:
            messages[-1]["content"] += f" {RARE}"
        yield ImportedConversation(
            id=_id(rng, began),
            title=texts.question()[:60].strip(),
            created_at=began,
            updated_at=messages[-1]["created_at"],
            messages=messages,
            settings={"temperature": 0.2} if number % 20 == 0 else {},
            pinned=number % 1000 == 3,
            archived_at=began + timedelta(days=90) if number % 20 == 5 else None,
            tags=rng.sample(_TAGS, 2) if number % 10 == 0 else (),
        )


def _messages(rng: random.Random, texts: _Texts, began: datetime) -> Iterator[ImportedMessage]:
    model, quantization = rng.choice(_MODELS), rng.choice(("none", "int8", "int4"))
    parent, now = None, began
    for _ in range(TURNS):
        now += timedelta(seconds=rng.uniform(20, 100))
        question, answer = _id(rng, now), _id(rng, now)
        place: dict[str, Any] = {"created_at": now, "parent_id": parent, "id": question}
        yield {**place, "role": "user", "content": texts.question(), "status": "complete"}  # type: ignore[typeddict-item]
        place = {"created_at": now, "parent_id": question, "id": answer}
        said = {"role": "assistant", "content": texts.answer(), "status": rng.choice(_STATUSES)}
        kind = {"model": model, "quantization": quantization}
        yield {**place, **said, **kind, **_figures(rng)}  # type: ignore[typeddict-item]
        parent = answer


def _figures(rng: random.Random) -> dict[str, object]:
    tokens = rng.randrange(20, 400)
    speed = rng.uniform(8, 60)
    return {
        "temperature": 0.8,
        "top_p": 0.8,
        "top_k": 0,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repetition_penalty": 1.0,
        "max_new_tokens": 512,
        "seed": rng.randrange(2**31),
        "stop": [],
        "system_prompt": "",
        "left_out": 0,
        "prompt_tokens": rng.randrange(20, 2000),
        "completion_tokens": tokens,
        "ttft_ms": round(rng.uniform(80, 900), 1),
        "duration_ms": round(tokens / speed * 1000, 1),
        "tokens_per_s": round(speed, 2),
        "finish_reason": "stop",
        "rating": rng.choice((1, 1, -1)) if rng.random() < 0.05 else None,
    }


class _Texts:
    """Sentences of made-up words, English and Chinese, as frequent as words are (Zipf)."""

    def __init__(self, rng: random.Random) -> None:
        syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "en")]
        words = ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3)))) for _ in range(20_000)]
        han = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
        pairs = ["".join(_by_zipf(rng, han, rng.choice((1, 2, 2, 2)))) for _ in range(20_000)]
        self._rng = rng
        self._sentences = [self._english(words) for _ in range(6000)]
        self._sentences += [self._chinese(pairs) for _ in range(6000)]

    def question(self) -> str:
        return self._rng.choice(self._sentences)

    def answer(self) -> str:
        return "\n".join(self._rng.choices(self._sentences, k=self._rng.choice((2, 4, 6))))

    def _english(self, words: list[str]) -> str:
        sentence = " ".join(_by_zipf(self._rng, words, self._rng.randrange(6, 16)))
        code = " `f(x)`" if self._rng.random() < 0.1 else ""
        return f"{sentence.capitalize()}{code}."

    def _chinese(self, words: list[str]) -> str:
        parts = ["".join(_by_zipf(self._rng, words, self._rng.randrange(3, 8))) for _ in range(3)]
        return "，".join(parts) + "。"


def _by_zipf(rng: random.Random, words: list[str], count: int) -> list[str]:
    # The n-th word about n times as rare as the first: the inverse of a logarithm.
    return [words[int(len(words) ** rng.random()) - 1] for _ in range(count)]


def _id(rng: random.Random, now: datetime) -> str:
    """As the store makes them, from this generator's time and chance."""
    return f"{int(now.timestamp() * 1000):012x}{rng.getrandbits(80):020x}"
