"""How much longer a step takes with guesses, by steps right behind each other."""

from __future__ import annotations

from collections import defaultdict

from glm_backend.engine.pace import between, smoothed
from glm_backend.engine.speculation import Cost

#: Steps with guesses that follow each other, before one is taken without: what a step takes changes
#: with the lengths of texts and with who else wants the cores, so only neighbours say anything.
_IN_A_ROW = 24
#: Until it is known: of the starter model a guess beside one answer takes an eighth of its step,
#: beside sixteen a fortieth.
_SHARE, _MORE = 0.5, 3


class GuessCost:
    """Learns it as the engine runs, for each number of answers by itself."""

    def __init__(self) -> None:
        # By guesses, for each number of answers.
        self._times: defaultdict[int, dict[int, float]] = defaultdict(lambda: {0: 1.0})
        self._answers = 0  # of the steps that are compared now
        self._plain_s: float | None = None
        self._in_a_row = 0

    def may_guess(self, answers: int) -> bool:
        """Whether the next step of so many answers may: there is one without to compare it with."""
        return answers == self._answers and self._plain_s is not None and self._in_a_row < _IN_A_ROW

    def learn(self, answers: int, guesses: int, seconds: float) -> None:
        """A step of so many answers, and nothing else, took so long."""
        if answers != self._answers:
            self._answers, self._plain_s = answers, None
        if not guesses:
            self._plain_s, self._in_a_row = smoothed(self._plain_s, seconds), 0
        elif self._plain_s is not None:
            self._in_a_row += 1
            known = self._times[answers]
            known[guesses] = smoothed(known.get(guesses), max(1.0, seconds / self._plain_s))

    def cost(self, answers: int) -> Cost:
        """Of so many tokens beside that of as many as there are answers, which is 1."""
        return lambda tokens: self.times(answers, tokens - answers)

    def share(self, answers: int, guesses: int) -> Cost:
        """The same of some of the guesses of a step that had so many."""
        each = (self.times(answers, guesses) - 1) / guesses
        return lambda tokens: 1 + each * (tokens - answers)

    def times(self, answers: int, guesses: int) -> float:
        """How many times as long as without: between those seen, beyond them as steep as they."""
        known = self._times[answers]
        if (seen := known.get(guesses)) is not None:
            return seen
        below = max(n for n in known if n < guesses)
        above = min((n for n in known if n > guesses), default=None)
        if above is not None:
            return between(known, below, guesses, above)
        each = (known[below] - 1) / below if below else _SHARE / (answers + _MORE)
        return known[below] + each * (guesses - below)
