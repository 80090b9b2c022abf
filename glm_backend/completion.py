"""Answers as text: what a chat asks of a model, whether it runs here or on another server.

A `Completer` takes messages and gives a `Completion`, whose events are pieces of text and one
terminal event. This is where token ids become characters and where stop strings are watched for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from glm_backend.engine.request import Failed, Finished, Generation, SamplingParams, Token
from glm_backend.models.model import Detokenizer, Message


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer and its log probability, and those of the likeliest in its place.

    text: by itself; U+FFFD where it is a part of a character. alternatives: the likeliest first.
    """

    text: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """New characters of the answer. `tokens` counts the answer's tokens so far.

    logprobs: of the new tokens, where SamplingParams.logprobs asked for them; there is a Text for
    each token then, also where its characters are still held back or are part of a stop string.
    """

    text: str
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


CompletionEvent = Text | Finished | Failed


class Completion(Protocol):
    """One answer under way.

    place: how many requests are before this one, itself included; 0 once it is being answered.
    """

    @property
    def place(self) -> int: ...

    def events(self) -> Iterator[CompletionEvent]:
        """Pieces of text, then exactly one Finished or Failed; blocks between them."""
        ...

    def cancel(self) -> None:
        """Asks for the end, from any thread."""
        ...


class Completer(Protocol):
    """A model that answers messages: those end with a question, or with an assistant's message,
    which then is the beginning of the answer and is carried on.

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

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> Completion:
        """Starts an answer, or carries one on: its text is only what is new.

        client: who asks; clients take turns where requests wait. Raises what the engine's submit
        raises.
        """
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
    """The text of a `Generation`: decodes it as it comes, and ends it at a stop string.

    decode: the text of some ids by themselves.
    """

    def __init__(
        self,
        generation: Generation,
        detokenizer: Detokenizer,
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self._generation = generation
        self._detokenizer = detokenizer
        self._decode = decode
        self._stops = StopStrings(generation.params.stop)

    @property
    def place(self) -> int:
        return self._generation.place

    def cancel(self) -> None:
        self._generation.cancel()

    def events(self) -> Iterator[CompletionEvent]:
        tokens = 0
        for event in self._generation.events():
            if isinstance(event, Token):
                tokens += 1
                if self._stops.found:  # what the engine made before it heard of the end
                    continue
                text, logprobs = self._push(event.token_id), self._logprobs(event)
                if text or logprobs:
                    yield Text(text, tokens, logprobs)
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

    def _logprobs(self, token: Token) -> tuple[TokenLogprob, ...]:
        if token.logprob is None:
            return ()
        others = tuple((self._decode([its_id]), value) for its_id, value in token.alternatives)
        return (TokenLogprob(self._decode([token.token_id]), token.logprob, others),)

    def _rest(self) -> str:
        out = self._stops.push(self._detokenizer.finish())
        return out if self._stops.found else out + self._stops.finish()

    def _terminal(self, event: Finished | Failed) -> Finished | Failed:
        if isinstance(event, Finished) and self._stops.found:
            return Finished("stop", event.usage)
        return event
