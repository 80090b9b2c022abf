"""How much of a prompt one step may take, so that nobody's next token waits long.

While answers are under way, a step with a portion of a prompt shall take less than twice the time
of one without; else it may take as long as Stop can wait. Both are measured as the engine runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: Time that prompts may add to a step, as a share of the answers' own step. 4,000 tokens beside
#: four answers of the starter model are read in 6 s with 1 and in 8 s with 0.75; at the 95th
#: percentile gaps are 2.0 to 2.2 and 1.8 times as long meanwhile.
_SHARE = 0.8
#: How long a step may take while no answer is under way, in seconds.
_ALONE_S = 0.2
#: Fewer tokens at a time cost a step as much: what they attend to is read anyway. A prompt of 4,000
#: beside four answers took 92 s by 4 tokens, 47 s by 8 and 25 s by 16, the answers' gaps growing
#: with their own length meanwhile (p95 172, 172 and 139 ms); by 24 tokens gaps were longer (220).
_LEAST = 16
_LEAST_ALONE, _MOST = 128, 1024
#: More would be read little faster, and a question that has just come waits for it to be through.
_MOST_BESIDE = 128
#: Of the time that a part may take, how much it shall, as parts are not all of one length.
_A_PART = 0.8
_FIRST = 64
_SMOOTHING = 0.2


class Pace:
    """Learns what steps cost, and says what the next one may hold.

    parts: of how many the pass over a portion is, which may go on over several steps then.
    """

    def __init__(self, parts: int = 1) -> None:
        self._parts = parts
        self._answers_s: dict[int, float] = {}  # by tokens: a step of answers only
        self._a_token_s: float | None = None  # of a prompt

    def portion(self, answers: int) -> int:
        """Prompt tokens for a step with so many tokens of answers."""
        if self._a_token_s is None:
            return _FIRST if not answers else _LEAST
        if not answers:
            return _whole(_ALONE_S / self._a_token_s, _LEAST_ALONE, _MOST)
        # A step takes a part at least: one shall just fit.
        tokens = self.patience(answers) * _A_PART * self._parts / self._a_token_s
        return _whole(tokens, _LEAST, _MOST if self._parts == 1 else _MOST_BESIDE)

    def patience(self, answers: int) -> float:
        """Seconds that answers may be kept waiting whose own pass is of so many tokens."""
        return _SHARE * self.cost(answers) if answers else math.inf

    def cost(self, tokens: int) -> float:
        """Seconds of a step of answers with so many tokens, from the nearest that were seen."""
        known = self._answers_s
        if not known:
            return 1.0
        if tokens in known:
            return known[tokens]
        below = max((n for n in known if n < tokens), default=None)
        above = min((n for n in known if n > tokens), default=None)
        if below is None or above is None:
            return known[below or above or tokens]
        return between(known, below, tokens, above)

    def learn(self, answers: int, prompt_tokens: float, seconds: float) -> None:
        """A pass with so many tokens of answers and of prompts took so long.

        prompt_tokens: of a pass in parts, the share that was taken.
        """
        if not prompt_tokens:
            self._answers_s[answers] = smoothed(self._answers_s.get(answers), seconds)
            return
        own = self.cost(answers) if answers and self._answers_s else 0.0
        each = max(seconds - own, 0.1 * seconds) / prompt_tokens
        self._a_token_s = smoothed(self._a_token_s, each)


def _whole(tokens: float, least: int, most: int) -> int:
    """A multiple of four between the limits."""
    return max(least, min(most, int(tokens) // 4 * 4))


def between(known: Mapping[int, float], below: int, at: int, above: int) -> float:
    """What lies on the line between two that are known."""
    share = (at - below) / (above - below)
    return known[below] + share * (known[above] - known[below])


def smoothed(before: float | None, now: float) -> float:
    """A new measurement beside those before it."""
    return now if before is None else before + _SMOOTHING * (now - before)
