"""A model that says what it is told to, for tests and for people who extend this.

Shipped for fault injection and page tests; nothing in the product uses it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from glm_backend.completion import CompletionEvent, Text
from glm_backend.engine.request import Failed, Finished, SamplingParams, Usage
from glm_backend.errors import GLMError
from glm_backend.models.model import Message


@dataclass
class FakeModel:
    """Answers with `words`, one every `pause_s` seconds, after `delay_s`.

    One word counts as one token. `error` ends the answer after the words, `refuse` is raised when
    an answer is asked for. With `echo` the words are those of the question.
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
    asked: list[tuple[Sequence[Message], SamplingParams]] = field(default_factory=list)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message["content"].split()) + 1 for message in messages)

    def complete(self, messages: Sequence[Message], params: SamplingParams) -> FakeCompletion:
        if self.refuse is not None:
            raise self.refuse
        self.asked.append((messages, params))
        words = messages[-1]["content"].split(" ") if self.echo else self.words
        return FakeCompletion(self, words, params, self.count_tokens(messages))

    def close(self) -> None:
        """Nothing to give back."""


class FakeCompletion:
    """One answer of a FakeModel."""

    def __init__(
        self, model: FakeModel, words: Sequence[str], params: SamplingParams, prompt_tokens: int
    ) -> None:
        self._model = model
        self._words = list(words)
        self._limit = params.max_new_tokens
        self._prompt_tokens = prompt_tokens
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def events(self) -> Iterator[CompletionEvent]:
        made = 0
        self._cancelled.wait(self._model.delay_s)
        for word in self._words[: self._limit]:
            if self._cancelled.wait(self._model.pause_s):
                break
            made += 1
            yield Text(word, made)
        usage = Usage(self._prompt_tokens, made, 0.01, 0.01 + made * max(self._model.pause_s, 0.01))
        if self._cancelled.is_set():
            yield Finished("cancelled", usage)
        elif self._model.error is not None:
            yield Failed(self._model.error, usage)
        else:
            yield Finished("length" if len(self._words) > self._limit else "stop", usage)
