"""The engine: one worker thread that steps the model for everybody at once.

A step is: let newcomers in, plan, forward, choose tokens, deliver; then prompts are read for a
while. Whatever goes wrong with one request (refused, not finite, an exception in its pass) ends
that request and no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as Ids

import numpy as np
from numpy.typing import NDArray

from glm_backend.engine.guess_cost import GuessCost
from glm_backend.engine.outcomes import Outcome, fault, outcomes, outcomes_apart, split
from glm_backend.engine.pace import Pace
from glm_backend.engine.prefix_cache import PrefixCache
from glm_backend.engine.reading import Reading
from glm_backend.engine.request import FinishReason, Generation, SamplingParams
from glm_backend.engine.runner import Runner
from glm_backend.engine.sampler import Sampler
from glm_backend.engine.scheduler import Planned, Scheduler, Sequence
from glm_backend.engine.speculation import PromptLookup
from glm_backend.engine.stats import Counts, EngineStats
from glm_backend.engine.thread_count import ThreadCount
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

#: How often consumers that stopped reading are looked at.
_LOOK_S = 0.05


def _leave(threads: int) -> None:
    """For runners without threads."""


class LocalEngine:
    """Serves token requests from a model in this process."""

    def __init__(
        self,
        runner: Runner,
        *,
        name: str,
        context_length: int,
        vocab_size: int,
        stop_ids: frozenset[int],
        max_concurrent: int = 8,
        max_waiting: int = 64,
        kept: int = 8,
        kv_tokens: int | None = None,
        threads: ThreadCount | None = None,
        set_threads: Callable[[int], None] = _leave,
    ) -> None:
        """kept: slots beside those of `max_concurrent` answers. kv_tokens: how many tokens' keys
        and values there is memory for, None for all that fit in the slots. threads, set_threads:
        how many the kernels get, and how that is said to them, in the engine's thread."""
        self._runner = runner
        self._name = name
        self._vocab_size = vocab_size
        self._stop_ids = stop_ids
        slots = max_concurrent + (kept if runner.rewinds else 0)
        runner.open(slots, context_length)
        self._prefixes = PrefixCache(runner, slots, kv_tokens or slots * context_length)
        self._limit = min(context_length, self._prefixes.budget)
        self._scheduler = Scheduler(max_concurrent, max_waiting)
        self._pace = Pace(runner.parts)
        self._guess_cost = GuessCost()
        self._answers = self._guesses = 0  # of the last pass
        self._reading: Reading | None = None
        self._threads = threads or ThreadCount(1)
        self._set_threads = set_threads
        self._threads_set = 0
        self._rows = 0  # of the step before
        self._counts = Counts()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt_ids: Ids[int],
        params: SamplingParams,
        *,
        ignore_eos: bool = False,
        client: str = "",
    ) -> Generation:
        """Puts a request in line.

        client: who asks; clients take turns. Raises InvalidParameter (no or unknown token ids),
        ContextOverflow (the prompt leaves no room for one token), EngineBusy (the line is full) or
        EngineClosed.
        """
        self._refuse_bad_prompt(prompt_ids)
        room = self._limit - len(prompt_ids)
        generation = Generation(
            prompt_ids,
            params,
            max_new_tokens=min(params.max_new_tokens, room),
            stop_ids=frozenset() if ignore_eos else self._stop_ids,
            client=client,
        )
        generation.when_cancelled(self._notify)
        generation.when_ended(self._counts.ended)
        with self._wake:
            if self._closed:
                raise EngineClosed()
            waiting = len(self._scheduler.waiting)
            if waiting >= self._scheduler.max_waiting:
                self._counts.ends["refused"] += 1
                raise EngineBusy(waiting=waiting, place=waiting + 1)
            self._scheduler.enter(generation)
            self._wake.notify()
        return generation

    def stats(self) -> EngineStats:
        """How busy it is, and what it has done."""
        scheduler, prefixes, counts = self._scheduler, self._prefixes, self._counts
        return EngineStats(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            max_running=scheduler.max_running,
            kv_tokens=prefixes.held,
            kv_limit=prefixes.budget,
            kept=prefixes.kept,
            threads=self._threads_set,
            prompt_tokens=counts.prompt_tokens,
            completion_tokens=counts.completion_tokens,
            reused_tokens=prefixes.reused_tokens,
            reuses=prefixes.hits,
            guessed_tokens=counts.guessed_tokens,
            guessed_right=counts.guessed_right,
            ends=dict(counts.ends),
            first_token=counts.first_token.histogram(),
            steps=counts.steps.histogram(),
        )

    def close(self) -> None:
        """Ends every request as cancelled, then the thread; lets go of the model."""
        with self._wake:
            if self._closed:
                return
            self._closed = True
            self._wake.notify()
        self._thread.join()
        self._prefixes.close()
        del self._runner

    def _refuse_bad_prompt(self, prompt_ids: Ids[int]) -> None:
        tokens = len(prompt_ids)
        if not tokens or not all(0 <= token < self._vocab_size for token in prompt_ids):
            highest = self._vocab_size - 1
            allowed = Phrase("at least one token id from 0 to {highest}", highest=highest)
            value = Phrase("{count} ids", count=tokens)
            raise InvalidParameter(name="prompt_ids", value=value, allowed=allowed)
        if tokens >= self._limit:
            raise ContextOverflow(
                prompt_tokens=tokens,
                model=self._name,
                limit=self._limit - 1,
                context=self._limit,
                reserved=1,
            )

    # --- the worker thread

    def _notify(self) -> None:
        with self._wake:
            self._wake.notify()

    def _loop(self) -> None:
        worked = True
        while self._wait_for_work(worked):
            try:
                worked = self.step()
            except Exception as error:  # a fault of ours must not end everybody's service
                logger.exception("engine step failed")
                self._end_all(error=InternalError(message=type(error).__name__))
        self._end_all(error=None)

    def _wait_for_work(self, worked: bool) -> bool:
        """Blocks until there is something to do; False when the engine is closing.

        A consumer that reads again wakes nobody, so paused requests are looked at now and then,
        also where others wait for their places: the step before had nothing to do then.
        """
        with self._wake:
            if not worked and not self._closed:
                self._wake.wait(timeout=_LOOK_S)
            while not self._closed and self._scheduler.idle and not self._any_cancelled():
                self._wake.wait(timeout=_LOOK_S if self._scheduler.running else None)
            return not self._closed

    def _any_cancelled(self) -> bool:
        return any(s.generation.cancelled for s in self._scheduler.running)

    def step(self) -> bool:
        """A token or more for each answer under way, and a portion of the prompts being read.

        Where a pass can rest, prompts have passes of their own, which go on over several steps;
        else one pass is of all. False where there was nothing to compute.
        """
        started = time.perf_counter()
        self._drop_cancelled()
        self._let_in()
        if self._threads.current != self._threads_set:
            self._threads_set = self._threads.current
            self._set_threads(self._threads_set)
        planned = self._scheduler.answers(self._guess_cost)
        answers = sum(len(part.stretch.token_ids) for part in planned)
        if self._runner.parts == 1:
            planned += self._scheduler.prompts(self._pace.portion(answers))
        if planned:
            self._pass(planned)
        reads = self._runner.parts > 1 and self._read(answers)
        worked = bool(planned) or reads
        if worked:
            self._counts.steps.add(time.perf_counter() - started)
        return worked

    def _pass(self, planned: list[Planned]) -> None:
        started = time.perf_counter()
        found = outcomes(self._runner, planned)
        self._learn(planned, time.perf_counter() - started)
        self._deliver(planned, found)

    def _read(self, answers: int) -> bool:
        """Goes on with prompts as long as answers may wait that were a pass of so many tokens.

        False where there are none.
        """
        if self._reading is None:
            planned = self._scheduler.prompts(self._pace.portion(answers))
            if not planned:
                return False
            self._reading = Reading(self._runner, planned)
        reading = self._reading
        started = time.perf_counter()
        try:
            taken, logits = reading.advance(self._pace.patience(answers))
        except Exception as error:
            self._reading = None
            self._deliver(reading.planned, outcomes_apart(self._runner, reading.planned, error))
            return True
        tokens = reading.tokens * taken / self._runner.parts
        self._pace.learn(0, tokens, time.perf_counter() - started)
        if logits is not None:
            self._reading = None
            self._counts.prompt_tokens += reading.tokens
            self._deliver(reading.planned, split(logits, reading.planned))
        return True

    def _drop_cancelled(self) -> None:
        if self._reading is not None and self._reading.unwanted:
            self._reading = None
        read = [] if self._reading is None else [p.sequence for p in self._reading.planned]
        with self._wake:
            waiting, running = self._scheduler.remove_cancelled(but=read)
        for generation in waiting:
            generation.finish("cancelled")
        for sequence in running:
            # What a prompt that was not read to its end left behind was never checked.
            self._let_go(sequence, clean=sequence.answering)
            sequence.generation.finish("cancelled")

    def _let_in(self) -> None:
        while (generation := self._scheduler.next_waiting()) is not None:
            try:
                place = self._prefixes.take(generation.prompt_ids, generation.tokens_needed)
            except Exception as error:
                logger.exception("a request could not be started")
                self._leave_line(generation)
                generation.fail(fault(error))
                continue
            if place is None:
                return
            self._leave_line(generation)
            generation.cached_tokens = place.known
            self._scheduler.running.append(self._sequence(generation, place.slot, place.known))

    def _leave_line(self, generation: Generation) -> None:
        with self._wake:
            self._scheduler.leave(generation)

    def _sequence(self, generation: Generation, slot: int, known: int) -> Sequence:
        prompt = generation.prompt_ids
        return Sequence(
            generation,
            slot,
            known,
            list(prompt),
            Sampler(generation.params, prompt, self._vocab_size),
            PromptLookup(prompt) if self._runner.rewinds else None,
        )

    def _learn(self, planned: list[Planned], seconds: float) -> None:
        answers = sum(len(p.stretch.token_ids) for p in planned if p.sequence.answering)
        prompts = sum(len(p.stretch.token_ids) for p in planned) - answers
        self._guesses = sum(len(p.draft) for p in planned)
        self._answers = sum(p.sequence.answering for p in planned)
        if not prompts:
            self._guess_cost.learn(self._answers, self._guesses, seconds)
        self._counts.prompt_tokens += prompts
        self._pace.learn(answers, prompts, seconds)
        if answers == self._rows and not prompts and self._reading is None:
            self._threads.learn(seconds)
        else:
            self._threads.changed()
        self._rows = answers

    def _deliver(self, planned: list[Planned], found: list[Outcome]) -> None:
        for part, outcome in zip(planned, found, strict=True):
            if isinstance(outcome, GLMError):
                self._retire(part.sequence, error=outcome)
                continue
            try:
                self._advance(part, outcome)
            except Exception as error:
                logger.exception("a token could not be chosen")
                if part.sequence in self._scheduler.running:
                    self._retire(part.sequence, error=fault(error))

    def _advance(self, part: Planned, logits: NDArray[np.float32]) -> None:
        """Takes the pass into account: more prompt to read, or tokens of the answer."""
        sequence = part.sequence
        if not len(logits):
            sequence.known = part.stretch.end
            return
        if not sequence.answering:
            self._prefixes.note(sequence.slot, sequence.generation.prompt_ids)
        right = 0
        for place, row in enumerate(logits):
            sequence.known = part.stretch.end - len(logits) + 1 + place
            token_id = self._choose(sequence, row)
            if token_id is None:
                break
            if place >= len(part.draft) or token_id != part.draft[place]:
                break
            right += 1
        self._learn_from_draft(part, right)

    def _choose(self, sequence: Sequence, logits: NDArray[np.float32]) -> int | None:
        """Takes the next token of the answer; None when the answer has ended."""
        if not np.isfinite(logits.max()):
            self._retire(sequence, error=NumericalError())
            return None
        generation = sequence.generation
        token = sequence.sampler.choose(logits)
        if token.token_id in generation.stop_ids:
            self._retire(sequence, reason="stop")
            return None
        generation.push(token)
        self._counts.completion_tokens += 1
        sequence.tokens.append(token.token_id)
        if sequence.lookup is not None:
            sequence.lookup.extend([token.token_id])
        if sequence.room <= 0:
            self._retire(sequence, reason="length")
            return None
        return token.token_id

    def _learn_from_draft(self, part: Planned, right: int) -> None:
        if part.draft and part.sequence.lookup is not None:
            self._counts.guessed_tokens += len(part.draft)
            self._counts.guessed_right += right
            cost = self._guess_cost.share(self._answers, self._guesses)
            part.sequence.lookup.learn(len(part.draft), right, self._answers, cost)

    def _retire(
        self,
        sequence: Sequence,
        *,
        reason: FinishReason = "stop",
        error: GLMError | None = None,
    ) -> None:
        self._scheduler.running.remove(sequence)
        self._let_go(sequence, clean=error is None)
        if error is not None:
            sequence.generation.fail(error)
        else:
            sequence.generation.finish(reason)

    def _let_go(self, sequence: Sequence, *, clean: bool) -> None:
        """Gives the slot back. Where that fails (a broken device) it is lost, not the request."""
        try:
            self._prefixes.give_back(sequence.slot, sequence.tokens[: sequence.known], clean=clean)
        except Exception:
            logger.exception("a slot could not be given back")

    def _end_all(self, *, error: GLMError | None) -> None:
        self._reading = None
        with self._wake:
            running = list(self._scheduler.running)
            everyone = [*(s.generation for s in running), *self._scheduler.waiting]
            self._scheduler.running.clear()
            self._scheduler.waiting.clear()
        for sequence in running:
            self._let_go(sequence, clean=False)
        for generation in everyone:
            if error is None:
                generation.finish("cancelled")
            else:
                generation.fail(error)
