"""The engine: one worker thread that steps the model for everybody at once.

A step is: let newcomers in, plan, forward, choose a token for each, deliver. Whatever goes wrong
with one request (refused, not finite, an exception in its pass) ends that request and no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from glm_backend.engine.request import FinishReason, Generation, SamplingParams
from glm_backend.engine.runner import CacheT, Runner, Stretch
from glm_backend.engine.sampler import Sampler
from glm_backend.engine.scheduler import Scheduler, Sequence
from glm_backend.errors import (
    ContextOverflow,
    EngineBusy,
    EngineClosed,
    GLMError,
    InternalError,
    InvalidParameter,
    NumericalError,
    Phrase,
)

logger = logging.getLogger(__name__)

#: How long one step should take, in seconds: Stop and the neighbours' next token wait for it.
STEP_TARGET_S = 0.1
_FIRST_PREFILL_TOKENS = 64
_PREFILL_TOKENS = (16, 1024)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How busy the engine is."""

    running: int
    waiting: int
    max_running: int


class LocalEngine(Generic[CacheT]):
    """Serves token requests from a model in this process."""

    def __init__(
        self,
        runner: Runner[CacheT],
        *,
        name: str,
        context_length: int,
        vocab_size: int,
        stop_ids: frozenset[int],
        max_concurrent: int = 8,
        max_waiting: int = 64,
    ) -> None:
        self._runner = runner
        self._name = name
        self._context_length = context_length
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids
        self._scheduler: Scheduler[CacheT] = Scheduler(max_concurrent, max_waiting)
        self._prefill_tokens = _FIRST_PREFILL_TOKENS
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self, prompt_ids: Ids[int], params: SamplingParams, *, ignore_eos: bool = False
    ) -> Generation:
        """Puts a request in line.

        Raises InvalidParameter (no or unknown token ids), ContextOverflow (the prompt leaves no
        room for one token), EngineBusy (the line is full) or EngineClosed.
        """
        self._refuse_bad_prompt(prompt_ids)
        room = self._context_length - len(prompt_ids)
        generation = Generation(
            prompt_ids,
            params,
            max_new_tokens=min(params.max_new_tokens, room),
            stop_ids=frozenset() if ignore_eos else self._stop_ids,
        )
        generation.when_cancelled(self._notify)
        with self._wake:
            if self._closed:
                raise EngineClosed()
            waiting = len(self._scheduler.waiting)
            if waiting >= self._scheduler.max_waiting:
                raise EngineBusy(waiting=waiting)
            self._scheduler.waiting.append(generation)
            self._wake.notify()
        return generation

    def stats(self) -> EngineStats:
        """How many answers are being written and how many requests wait."""
        scheduler = self._scheduler
        return EngineStats(len(scheduler.running), len(scheduler.waiting), scheduler.max_running)

    def close(self) -> None:
        """Ends every request as cancelled, then the thread; lets go of the model."""
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
        self._thread.join()
        del self._runner

    def _refuse_bad_prompt(self, prompt_ids: Ids[int]) -> None:
        tokens = len(prompt_ids)
        if not tokens or not all(0 <= token < self._vocab_size for token in prompt_ids):
            highest = self._vocab_size - 1
            allowed = Phrase("at least one token id from 0 to {highest}", highest=highest)
            value = Phrase("{count} ids", count=tokens)
            raise InvalidParameter(name="prompt_ids", value=value, allowed=allowed)
        if tokens >= self._context_length:
            raise ContextOverflow(
                prompt_tokens=tokens,
                model=self._name,
                limit=self._context_length - 1,
                context=self._context_length,
                reserved=1,
            )

    # --- the worker thread

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _loop(self) -> None:
        while self._wait_for_work():
            try:
                self.step()
            except Exception as error:  # a fault of ours must not end everybody's service
                logger.exception("engine step failed")
                self._end_all(error=InternalError(message=type(error).__name__))
        self._end_all(error=None)

    def _wait_for_work(self) -> bool:
        """Blocks until there is something to do; False when the engine is closing.

        A consumer that reads again wakes nobody, so paused requests are looked at now and then.
        """
        with self._wake:
            while not self._closed and self._scheduler.idle and not self._any_cancelled():
                self._wake.wait(timeout=0.05 if self._scheduler.running else None)
            return not self._closed

    def _any_cancelled(self) -> bool:
        return any(s.generation.cancelled for s in self._scheduler.running)

    def step(self) -> None:
        """One token for each answer under way, and a portion of the prompts being read."""
        self._drop_cancelled()
        self._let_in()
        planned = self._scheduler.plan(self._prefill_tokens)
        if not planned:
            return
        started = time.perf_counter()
        rows = self._forward(planned)
        self._adapt(planned, time.perf_counter() - started)
        for (sequence, stretch), row in zip(planned, rows, strict=True):
            self._deliver(sequence, len(stretch.token_ids), row)

    def _drop_cancelled(self) -> None:
        with self._wake:
            gone = self._scheduler.remove_cancelled()
        for generation in gone:
            generation.finish("cancelled")

    def _let_in(self) -> None:
        while True:
            with self._wake:
                generation = self._scheduler.next_waiting()
            if generation is None:
                return
            try:
                self._scheduler.running.append(self._sequence(generation))
            except Exception as error:
                logger.exception("a request could not be started")
                generation.fail(InternalError(message=_short(error)))

    def _sequence(self, generation: Generation) -> Sequence[CacheT]:
        capacity = len(generation.prompt_ids) + generation.max_new_tokens
        return Sequence(
            generation,
            self._runner.new_cache(capacity),
            Sampler(generation.params, generation.prompt_ids, self._vocab_size),
            list(generation.prompt_ids),
        )

    def _forward(
        self, planned: list[tuple[Sequence[CacheT], Stretch[CacheT]]]
    ) -> list[Tensor | GLMError]:
        """A row of logits for each stretch; where the batch fails, each one by itself."""
        if self._runner.batched or len(planned) == 1:
            try:
                return list(self._runner.forward([stretch for _, stretch in planned]))
            except Exception as error:
                if len(planned) == 1:
                    logger.exception("forward pass failed")
                    return [InternalError(message=_short(error))]
        return [self._forward([one])[0] for one in planned]

    def _adapt(
        self, planned: list[tuple[Sequence[CacheT], Stretch[CacheT]]], seconds: float
    ) -> None:
        """Steers the prompt portion towards `STEP_TARGET_S` a step, by halves and doubles."""
        portion = sum(len(stretch.token_ids) for s, stretch in planned if not s.prefilled)
        low, high = _PREFILL_TOKENS
        if portion and seconds > STEP_TARGET_S:
            self._prefill_tokens = max(low, self._prefill_tokens // 2)
        elif portion >= self._prefill_tokens and seconds < STEP_TARGET_S / 2.5:
            self._prefill_tokens = min(high, self._prefill_tokens * 2)

    def _deliver(
        self, sequence: Sequence[CacheT], consumed: int, outcome: Tensor | GLMError
    ) -> None:
        if isinstance(outcome, GLMError):
            self._retire(sequence, error=outcome)
            return
        try:
            self._advance(sequence, consumed, outcome)
        except Exception as error:
            logger.exception("a token could not be chosen")
            self._retire(sequence, error=InternalError(message=_short(error)))

    def _advance(self, sequence: Sequence[CacheT], consumed: int, logits: Tensor) -> None:
        """Takes the pass into account: more prompt to read, or the next token of the answer."""
        del sequence.pending[:consumed]
        if sequence.pending:
            return
        sequence.prefilled = True
        if not torch.isfinite(logits.max()):
            self._retire(sequence, error=NumericalError())
            return
        generation = sequence.generation
        token = sequence.sampler.choose(logits)
        if token in generation.stop_ids:
            self._retire(sequence, reason="stop")
            return
        generation.push(token)
        sequence.pending.append(token)
        if generation.completion_tokens >= generation.max_new_tokens:
            self._retire(sequence, reason="length")

    def _retire(
        self,
        sequence: Sequence[CacheT],
        *,
        reason: FinishReason = "stop",
        error: GLMError | None = None,
    ) -> None:
        self._scheduler.running.remove(sequence)
        if error is not None:
            sequence.generation.fail(error)
        else:
            sequence.generation.finish(reason)

    def _end_all(self, *, error: GLMError | None) -> None:
        with self._wake:
            everyone = [s.generation for s in self._scheduler.running]
            everyone += self._scheduler.waiting
            self._scheduler.running.clear()
            self._scheduler.waiting.clear()
        for generation in everyone:
            if error is None:
                generation.finish("cancelled")
            else:
                generation.fail(error)


def _short(error: Exception) -> str:
    """One line that names an exception, without a page of tensor shapes."""
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else repr(error)
    )
