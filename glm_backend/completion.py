"""Answers as text: what a chat asks of a model, whether it runs here or on another server.

A `Completer` takes messages and gives a `Completion`, whose events are pieces of text and one
terminal event. This is where token ids become characters and where stop strings are watched for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from glm_backend.engine.request import Failed, Finished, Generation, SamplingParams, Token
from glm_backend.models.model import Detokenizer, Message


@dataclass(frozen=True, slots=True)
class Text:
    """New characters of the answer. `tokens` counts the answer's tokens so far."""

    text: str
    tokens: int


CompletionEvent = Text | Finished | Failed


class Completion(Protocol):
    """One answer under way."""

    def events(self) -> Iterator[CompletionEvent]:
        """Pieces of text, then exactly one Finished or Failed; blocks between them."""
        ...

    def cancel(self) -> None:
        """Asks for the end, from any thread."""
        ...


class Completer(Protocol):
    """A model that answers messages.

    name, quantization: as recorded with each answer. family: the kind of model, "" where it is
    not known. context_length: tokens of prompt and answer.
    """

    @property
    def name(self) -> str: ...

    @property
    def family(self) -> str: ...

    @property
    def quantization(self) -> str: ...

    @property
    def context_length(self) -> int: ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of these messages, the mark that opens the answer included."""
        ...

    def complete(self, messages: Sequence[Message], params: SamplingParams) -> Completion:
        """Starts an answer. Raises what the engine's submit raises."""
        ...


class StopStrings:
    """Lets text through up to the first stop string, holding back what may become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """The characters that are certain to belong to the answer."""
        self._held += text
        places = [p for p in (self._held.find(stop) for stop in self._stops) if p >= 0]
        if places:
            self.found = True
            out, self._held = self._held[: min(places)], ""
            return out
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def finish(self) -> str:
        """What was held back, once it is known that no stop string follows."""
        out, self._held = self._held, ""
        return out

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)


class TokenCompletion:
    """The text of a `Generation`: decodes it as it comes, and ends it at a stop string."""

    def __init__(self, generation: Generation, detokenizer: Detokenizer) -> None:
        self._generation = generation
        self._detokenizer = detokenizer
        self._stops = StopStrings(generation.params.stop)

    def cancel(self) -> None:
        self._generation.cancel()

    def events(self) -> Iterator[CompletionEvent]:
        tokens = 0
        for event in self._generation.events():
            if isinstance(event, Token):
                tokens += 1
                text = "" if self._stops.found else self._push(event.token_id)
                if text:
                    yield Text(text, tokens)
                continue
            rest = "" if self._stops.found else self._rest()
            if rest:
                yield Text(rest, tokens)
            yield self._terminal(event)

    def _push(self, token_id: int) -> str:
        text = self._stops.push(self._detokenizer.push(token_id))
        if self._stops.found:
            self._generation.cancel()
        return text

    def _rest(self) -> str:
        out = self._stops.push(self._detokenizer.finish())
        return out if self._stops.found else out + self._stops.finish()

    def _terminal(self, event: Finished | Failed) -> Finished | Failed:
        if isinstance(event, Finished) and self._stops.found:
            return Finished("stop", event.usage)
        return event
