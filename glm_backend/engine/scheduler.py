"""Who runs in the next step.

Requests wait in line for a place; those with a place are sequences. Every step carries the tokens
of each answer under way and, beside them, a bounded number of prompt tokens, so that a long prompt
is read in portions and the others' answers go on meanwhile.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from glm_backend.engine.batch import Stretch
from glm_backend.engine.guess_cost import GuessCost
from glm_backend.engine.request import Generation
from glm_backend.engine.sampler import Sampler
from glm_backend.engine.speculation import Cost, PromptLookup


@dataclass(slots=True, eq=False)
class Sequence:
    """A request with a place in the batch: what the model has read, and what it reads next.

    tokens: prompt and answer so far. known: how many of them are in the slot. lookup: guesses,
    where the runner can take them back.
    """

    generation: Generation
    slot: int
    known: int
    tokens: list[int]
    sampler: Sampler
    lookup: PromptLookup | None

    @property
    def answering(self) -> bool:
        """True once the prompt is read: what is not known is the token just chosen."""
        return self.known >= len(self.generation.prompt_ids)

    @property
    def room(self) -> int:
        """Tokens that the answer may still have."""
        return self.generation.max_new_tokens - self.generation.completion_tokens


@dataclass(frozen=True, slots=True)
class Planned:
    """A sequence with its part of a step. draft: guesses behind the token just chosen."""

    sequence: Sequence
    stretch: Stretch
    draft: tuple[int, ...] = ()


@dataclass(slots=True)
class Scheduler:
    """The line and the batch. Plain bookkeeping, without threads or tensors."""

    max_running: int
    max_waiting: int
    waiting: list[Generation] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    _turns: int = 0
    _last_turn: dict[str, int] = field(default_factory=dict)  # of the clients that wait
    _shortest_first: bool = True  # of the prompts read last

    @property
    def idle(self) -> bool:
        """True when a step would have nothing to do."""
        return not self.waiting and all(s.generation.paused for s in self.running)

    def enter(self, generation: Generation) -> None:
        """Puts a request at the end of the line."""
        self.waiting.append(generation)
        self._number()

    def next_waiting(self) -> Generation | None:
        """Who is next, if there is a place; it stays in line until `leave`."""
        if not self.waiting or len(self.running) >= self.max_running:
            return None
        return self._in_turn()[0]

    def leave(self, generation: Generation) -> None:
        """Takes a request out of line; it was its client's turn."""
        self.waiting.remove(generation)
        generation.place = 0
        self._turns += 1
        self._last_turn[generation.client] = self._turns
        clients = {waiting.client for waiting in self.waiting}
        self._last_turn = {c: turn for c, turn in self._last_turn.items() if c in clients}
        self._number()

    def _in_turn(self) -> list[Generation]:
        """The line as it will be served, were nobody to come or go.

        A client goes before those with more answers, counted with what they have before in line;
        among equals, before those whose turn came later.
        """
        ahead = Counter(sequence.generation.client for sequence in self.running)
        turns: list[tuple[int, int, int]] = []
        for number, generation in enumerate(self.waiting):
            client = generation.client
            turns.append((ahead[client], self._last_turn.get(client, 0), number))
            ahead[client] += 1
        return [self.waiting[number] for _, _, number in sorted(turns)]

    def answers(self, costs: GuessCost) -> list[Planned]:
        """The next token, and guesses, of every answer under way."""
        answering = [s for s in self.running if s.answering and not s.generation.paused]
        count = len(answering)
        cost = costs.cost(count) if costs.may_guess(count) else None
        return [self._answer(s, count, cost) for s in answering]

    def prompts(self, portion: int) -> list[Planned]:
        """What is read next of the prompts: at most `portion` tokens, one at least.

        In turn the prompts that came first and those with the least to read go first: a short
        question does not wait for a long document, nor the document for ever.
        """
        unread = [s for s in self.running if not s.answering]
        if unread:
            self._shortest_first = not self._shortest_first
        if self._shortest_first:
            unread.sort(key=lambda s: len(s.tokens) - s.known)
        planned, room = [], max(1, portion)
        for sequence in unread:
            if room > 0:
                planned.append(_prompt(sequence, room))
                room -= len(planned[-1].stretch.token_ids)
        return planned

    def _answer(self, sequence: Sequence, rows: int, cost: Cost | None) -> Planned:
        draft: list[int] = []
        if sequence.lookup is not None and cost is not None:
            draft = sequence.lookup.propose(sequence.room - 1, rows, cost)
        token_ids = [*sequence.tokens[sequence.known :], *draft]
        stretch = Stretch(
            sequence.slot, sequence.known, token_ids, scored=len(token_ids), answering=True
        )
        return Planned(sequence, stretch, tuple(draft))

    def remove_cancelled(self, *, but: list[Sequence]) -> tuple[list[Generation], list[Sequence]]:
        """Takes everyone who asked for the end out of line and batch, except for `but`."""
        waiting = [g for g in self.waiting if g.cancelled]
        for generation in waiting:
            self.leave(generation)
        running = [s for s in self.running if s.generation.cancelled and s not in but]
        for sequence in running:
            self.running.remove(sequence)
        return waiting, running

    def _number(self) -> None:
        for place, generation in enumerate(self._in_turn(), 1):
            generation.place = place


def _prompt(sequence: Sequence, room: int) -> Planned:
    """The next portion of a prompt; its last token's logits are wanted when it is the end."""
    token_ids = sequence.tokens[sequence.known : sequence.known + room]
    complete = sequence.known + len(token_ids) == len(sequence.tokens)
    return Planned(
        sequence, Stretch(sequence.slot, sequence.known, token_ids, scored=int(complete))
    )
