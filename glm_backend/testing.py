"""A model that says what it is told to, for tests and for people who extend this.

Shipped for fault injection and page tests; nothing in the product uses it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from glm_backend.completion import CompletionEvent, Text, TokenLogprob
from glm_backend.engine.request import Failed, Finished, SamplingParams, Usage
from glm_backend.engine.stats import EngineStats
from glm_backend.errors import GLMError
from glm_backend.models.model import Message

_HALF = math.log(0.5)


@dataclass
class FakeModel:
    """Answers with `words`, one every `pause_s` seconds, after `delay_s`.

    One word counts as one token, as likely as not, and the only one that could come. place: where
    its requests stand in line during `delay_s`. `error` ends the answer after the words, `refuse`
    is raised when an answer is asked for. With `echo` the words are those of the question. An
    answer that is carried on goes on with the words that it does not have yet.
    """

    words: Sequence[str] = ("Hello", " from", " the", " fake", " model", ".")
    pause_s: float = 0.0
    delay_s: float = 0.0
    error: GLMError | None = None
    refuse: GLMError | None = None
    echo: bool = False
    name: str = "fake"
    quantization: str = "none"
    family: str = ""
    context_length: int = 1000
    kernels: Sequence[str] = ()
    kv_bytes_per_token: int = 0
    place: int = 0
    asked: list[tuple[Sequence[Message], SamplingParams]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    figures: EngineStats = field(default_factory=lambda: EngineStats(0, 0, 8))

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message["content"].split()) + 1 for message in messages)

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> FakeCompletion:
        if self.refuse is not None:
            raise self.refuse
        self.asked.append((messages, params))
        self.clients.append(client)
        said = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        words = question_of(messages).split(" ") if self.echo else self.words
        return FakeCompletion(self, _left(words, said), params, self.count_tokens(messages))

    def stats(self) -> EngineStats:
        """As told by `figures`."""
        return self.figures

    def close(self) -> None:
        """Nothing to give back."""


def question_of(messages: Sequence[Message]) -> str:
    """What the user asked last."""
    return next(m["content"] for m in reversed(messages) if m["role"] == "user")


def _left(words: Sequence[str], said: str) -> Sequence[str]:
    """The words that are still to be said."""
    for count, word in enumerate(words):
        if not said:
            return words[count:]
        said = said.removeprefix(word)
    return []


class FakeCompletion:
    """One answer of a FakeModel."""

    def __init__(
        self, model: FakeModel, words: Sequence[str], params: SamplingParams, prompt_tokens: int
    ) -> None:
        self._model = model
        self._words = list(words)
        self._params = params
        self.place = model.place
        self._prompt_tokens = prompt_tokens
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def events(self) -> Iterator[CompletionEvent]:
        made = 0
        self._cancelled.wait(self._model.delay_s)
        self.place = 0
        limit = self._params.max_new_tokens
        for word in self._words[:limit]:
            if self._cancelled.wait(self._model.pause_s):
                break
            made += 1
            yield Text(word, made, self._logprobs(word))
        usage = Usage(self._prompt_tokens, made, 0.01, 0.01 + made * max(self._model.pause_s, 0.01))
        if self._cancelled.is_set():
            yield Finished("cancelled", usage)
        elif self._model.error is not None:
            yield Failed(self._model.error, usage)
        else:
            yield Finished("length" if len(self._words) > limit else "stop", usage)

    def _logprobs(self, word: str) -> tuple[TokenLogprob, ...]:
        if self._params.logprobs is None:
            return ()
        alternatives = ((word, _HALF),) if self._params.logprobs else ()
        return (TokenLogprob(word, _HALF, alternatives),)
