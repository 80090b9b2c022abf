"""Guessing the next tokens from the text so far (prompt lookup, Saxena 2023).

An answer that repeats what stands before it (quotations, edits, code) is continued as it was
continued there; several guesses are checked in one pass. Whether that pays is measured: a guess
costs what its rows add to a step, and gains what share of it was right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: A guess follows the last place where these many tokens stood in the same order.
_NGRAM = 3
_MOST = 8
#: A guess must promise this much more than the plain step.
_LEAST_GAIN = 1.05
#: Steps' worth of time that may be lost to guesses that were wrong: at first, and each step. All
#: answers of a step wait for the guesses of one, so each may lose its share of this only.
_FIRST_LOSS, _LOSS_A_STEP = 0.5, 0.005
_SMOOTHING = 0.15

#: Rows of a step -> how long it takes, in any unit.
Cost = Callable[[int], float]


class PromptLookup:
    """The guesses for one request."""

    def __init__(self, prompt_ids: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}
        self._right = 0.5  # share of guessed tokens that were right
        self._lost = 0.0  # steps' worth of time that guesses have cost more than they gained
        self._steps = 0
        self.extend(prompt_ids)

    def extend(self, token_ids: Sequence[int]) -> None:
        """These tokens have come."""
        for token in token_ids:
            self._tokens.append(token)
            # What stands before the newest token: a look-up must not find itself.
            end = len(self._tokens) - 1
            if end >= _NGRAM:
                self._follows[tuple(self._tokens[end - _NGRAM : end])] = end

    def propose(self, most: int, rows: int, cost: Cost) -> list[int]:
        """Guesses for a step that has `rows` rows without them; often none."""
        self._steps += 1
        found = self._follows.get(tuple(self._tokens[-_NGRAM:]))
        if found is None or most < 1:
            return []
        count = self._worthwhile(min(most, _MOST), rows, cost)
        return self._tokens[found : found + count]

    def learn(self, guessed: int, right: int, rows: int, cost: Cost) -> None:
        """`right` of the `guessed` tokens of a step were as guessed, beside `rows` rows."""
        seen = min(guessed, right + 1)  # what follows the first wrong one was never looked at
        for number in range(seen):
            self._right += _SMOOTHING * ((number < right) - self._right)
        self._lost += cost(rows + guessed) / cost(rows) - (1 + right / rows)

    def _worthwhile(self, most: int, rows: int, cost: Cost) -> int:
        plain, best, highest = cost(rows), 0, _LEAST_GAIN
        expected, likely = float(rows), 1.0  # tokens of the step, over all answers
        # However many and at no cost: among many answers there is mostly nothing to weigh.
        may_pay = rows + self._right / max(1 - self._right, 1e-9) > _LEAST_GAIN * rows
        for count in range(1, most + 1 if may_pay else 1):
            likely *= self._right
            expected += likely
            gain = expected / rows * plain / cost(rows + count)
            if gain > highest:
                best, highest = count, gain
        if best == 0 and self._lost * rows < _FIRST_LOSS + _LOSS_A_STEP * self._steps:
            best = min(2, most)  # to see whether the text has become one that repeats itself
        return best
