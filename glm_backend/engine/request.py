"""One request for tokens: its sampling parameters, and the stream of events that answers it.

Tokens, the end, a cancellation and a failure all travel on the same channel, and every request
gets exactly one terminal event (`Finished` or `Failed`), after which nothing follows.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from glm_backend.errors import GLMError, InvalidParameter, Phrase

FinishReason = Literal["stop", "length", "cancelled"]
#: (token id, its log probability)
LogProb = tuple[int, float]

MAX_SEED = 2**63 - 1
MAX_STOP_STRINGS = 16

#: Inclusive limits of each number a request may carry: (low, high).
LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.01, 1.0),
    "top_k": (0, 1000),
    "min_p": (0.0, 1.0),
    "typical_p": (0.01, 1.0),
    "repetition_penalty": (0.5, 2.0),
    "max_new_tokens": (1, 32768),
    "seed": (0, MAX_SEED),
    "logprobs": (0, 20),
}
#: Parameters that may be None, which asks for nothing.
_OPTIONAL = ("seed", "logprobs")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the tokens of one request are chosen.

    temperature: 0 is greedy. top_p: share of probability kept (Holtzman et al. 2020). top_k: 0
    keeps all. min_p: tokens less likely than this share of the likeliest go (Nguyen et al. 2024),
    0 keeps all. typical_p: share of probability kept of the tokens whose surprise is nearest to the
    expected one (Meister et al. 2022), 1 keeps all. repetition_penalty: 1 is none (Keskar et al.
    2019, section 4.1). seed: None draws a new one. max_new_tokens: tokens of the answer. stop:
    strings that end the answer and are not part of it; the engine itself knows no text, so
    `completion.py` watches for them. logprobs: how many alternatives of each token are told with
    their log probabilities, which are the model's own, before any of the above; None tells none.

    Raises InvalidParameter for a value of the wrong kind or out of `LIMITS`.
    """

    temperature: float = 0.8
    top_p: float = 0.8
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 1024
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if name in _OPTIONAL and value is None:
                continue
            whole = isinstance(low, int)
            kind = int if whole else (int, float)
            right_kind = isinstance(value, kind) and not isinstance(value, bool)
            if not right_kind or not math.isfinite(value) or not low <= value <= high:
                allowed = (
                    Phrase("a whole number from {low} to {high}", low=low, high=high)
                    if whole
                    else Phrase("a number from {low} to {high}", low=low, high=high)
                )
                raise InvalidParameter(name=name, value=repr(value), allowed=allowed)
        strings = isinstance(self.stop, tuple) and all(isinstance(s, str) and s for s in self.stop)
        if not strings or len(self.stop) > MAX_STOP_STRINGS:
            allowed = Phrase("at most {limit} strings that are not empty", limit=MAX_STOP_STRINGS)
            raise InvalidParameter(name="stop", value=repr(self.stop), allowed=allowed)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of all parameters, in the order in which pages and exports show them."""
        return tuple(f.name for f in fields(cls))


@dataclass(frozen=True, slots=True)
class Token:
    """One new token of the answer, and where they were asked for its log probabilities.

    logprob: its own; alternatives: of the likeliest tokens, the likeliest first.
    """

    token_id: int
    logprob: float | None = None
    alternatives: tuple[LogProb, ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost. Times in seconds; `ttft_s` counts from submit to the first token.

    cached_tokens: of the prompt, those whose keys and values were there already.
    """

    prompt_tokens: int
    completion_tokens: int
    ttft_s: float | None
    duration_s: float
    cached_tokens: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        """Speed of decoding after the first token; None for answers of fewer than two tokens."""
        if self.ttft_s is None or self.completion_tokens < 2 or self.duration_s <= self.ttft_s:
            return None
        return (self.completion_tokens - 1) / (self.duration_s - self.ttft_s)


@dataclass(frozen=True, slots=True)
class Finished:
    """Terminal: the request ended as it should, or because it was asked to."""

    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: the request could not go on. `error` says why."""

    error: GLMError
    usage: Usage


Event = Token | Finished | Failed


class Generation:
    """One request under way: the prompt and parameters, and the channel its events travel on.

    Made by `Engine.submit`. The consumer reads `events()` and may `cancel()` from any thread; the
    engine writes with `push` and `end`. A consumer that stops reading fills the channel, and the
    engine then leaves the request out of its steps until there is room: it never blocks.

    client: who asks; clients take turns where requests wait. place: how many requests are before
    this one, itself included; 0 once it is being answered.
    """

    #: Tokens that may wait unread before the engine pauses the request.
    CAPACITY = 1024

    def __init__(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        max_new_tokens: int,
        stop_ids: frozenset[int],
        client: str = "",
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.prompt_ids = tuple(prompt_ids)
        self.params = params
        self.max_new_tokens = max_new_tokens
        self.stop_ids = stop_ids
        self.client = client
        self.place = 0
        self.cancelled = False
        self.completion_tokens = 0
        self.cached_tokens = 0
        self._clock = clock
        self._submitted_s = clock()
        self._first_token_s: float | None = None
        self._events: deque[Event] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._on_cancel: Callable[[], None] = lambda: None
        self._on_end: Callable[[Finished | Failed], None] = lambda event: None

    # --- the consumer's side

    def events(self) -> Iterator[Event]:
        """All events in order; blocks between them; ends after the terminal one."""
        while True:
            with self._changed:
                while not self._events:
                    self._changed.wait()
                event = self._events.popleft()
            yield event
            if not isinstance(event, Token):
                return

    def cancel(self) -> None:
        """Asks for the end; the engine answers within one step with Finished("cancelled").

        Of a prompt that is being read together with others', at the end of that portion.
        """
        self.cancelled = True
        self._on_cancel()

    # --- the engine's side

    def when_cancelled(self, wake: Callable[[], None]) -> None:
        """Registers what to call at `cancel`, so that a sleeping engine notices."""
        self._on_cancel = wake

    def when_ended(self, tell: Callable[[Finished | Failed], None]) -> None:
        """Registers who is told of the terminal event."""
        self._on_end = tell

    @property
    def paused(self) -> bool:
        """True while the consumer has `CAPACITY` events still to read."""
        return len(self._events) >= self.CAPACITY

    @property
    def ended(self) -> bool:
        """True once the terminal event was sent."""
        return self._ended

    @property
    def tokens_needed(self) -> int:
        """Tokens of prompt and answer at most."""
        return len(self.prompt_ids) + self.max_new_tokens

    def push(self, token: Token) -> None:
        """Sends one token of the answer."""
        if self._first_token_s is None:
            self._first_token_s = self._clock()
        self.completion_tokens += 1
        self._send(token)

    def finish(self, reason: FinishReason) -> None:
        """Sends the terminal event of a request that ended as it should."""
        self._send(Finished(reason, self._usage()))

    def fail(self, error: GLMError) -> None:
        """Sends the terminal event of a request that cannot go on."""
        self._send(Failed(error, self._usage()))

    def _send(self, event: Event) -> None:
        with self._changed:
            if self._ended:
                return
            self._ended = not isinstance(event, Token)
            if not isinstance(event, Token):  # before anybody hears of it, and so can look
                self._on_end(event)
            self._events.append(event)
            self._changed.notify_all()

    def _usage(self) -> Usage:
        first = self._first_token_s
        return Usage(
            prompt_tokens=len(self.prompt_ids),
            completion_tokens=self.completion_tokens,
            ttft_s=None if first is None else first - self._submitted_s,
            duration_s=self._clock() - self._submitted_s,
            cached_tokens=self.cached_tokens,
        )
