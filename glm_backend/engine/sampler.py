"""From logits to the next token, for one request.

The random numbers of a request depend on its seed, the place in the answer and the token id, and
on nothing else: not on who else is served, nor on the order in which near-equal candidates are
sorted. With one number a candidate (the Gumbel-max trick, Maddison et al. 2014) a difference in the
last bits of the logits changes a token only when it is as large as the lead of the winner, where
one draw along the cumulative distribution would move every later border. A token that a draft
guessed right is chosen exactly as it would have been without the draft.

The order of the steps is that of transformers' generate(): repetition penalty, temperature,
top_k, top_p, min_p, typical_p.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from glm_backend.engine.request import MAX_SEED, LogProb, SamplingParams, Token
from glm_backend.native.compiled import is_possible
from glm_backend.native.drawing import drawn
from glm_backend.native.largest import Largest

#: float32 of [vocab] or of some candidates; NumPy, as its kernels are the quickest for one row.
Numbers = NDArray[np.float32]
Ids = NDArray[np.int32]
Words = tuple[np.uint32, np.uint32]

#: Candidates sorted at first; sorting a whole vocabulary costs milliseconds a token.
_FIRST_CANDIDATES = 256
#: Temperatures below it take the likeliest token as 0 does: divided by less, logits overflow.
_GREEDY = 1e-5


class Sampler:
    """Chooses the tokens of one request."""

    def __init__(
        self, params: SamplingParams, prompt_ids: tuple[int, ...], vocab_size: int
    ) -> None:
        self._params = params
        self._seed = secrets.randbelow(MAX_SEED) if params.seed is None else params.seed
        self._place = 0
        self._finder = Largest(vocab_size)
        self._seen: NDArray[np.bool_] | None = None
        if params.repetition_penalty != 1:
            self._seen = np.zeros(vocab_size, dtype=np.bool_)
            self._seen[list(prompt_ids)] = True

    def choose(self, logits: Numbers) -> Token:
        """The next token. logits: [vocab], no NaN; they may be changed."""
        told = self._params.logprobs
        logprobs = None if told is None else _log_softmax(logits)
        if self._seen is not None:
            self._penalise(logits, self._seen)
        greedy = self._params.temperature < _GREEDY
        token = int(logits.argmax()) if greedy else self._sampled(logits)
        if self._seen is not None:
            self._seen[token] = True
        if logprobs is None or told is None:
            return Token(token)
        return Token(token, float(logprobs[token]), _likeliest(logprobs, told))

    def _penalise(self, logits: Numbers, seen: NDArray[np.bool_]) -> None:
        # Keskar et al. 2019 (CTRL), section 4.1, in the sign-aware form all libraries use.
        penalty = np.float32(self._params.repetition_penalty)
        said = logits[seen]
        logits[seen] = np.where(said < 0, said * penalty, said / penalty)

    def _sampled(self, logits: Numbers) -> int:
        scaled, ids = self._candidates(logits)
        self._place += 1
        return int(ids[_drawn(scaled, ids, _words(self._seed, self._place))])

    def _candidates(self, logits: Numbers) -> tuple[Numbers, Ids]:
        """Log weights and ids of the tokens that the parameters leave."""
        params, vocab = self._params, len(logits)
        temperature = np.float32(params.temperature)
        if 0 < params.top_k < vocab:
            ids = self._largest(logits, params.top_k)  # the same at every temperature
            values = logits[ids] / temperature
            weights = np.exp(values - values[0])
            return self._nucleus(values, ids, weights / weights.sum())
        scaled = logits / temperature
        if params.top_p < 1 or params.min_p > 0:
            return self._growing(scaled)
        if params.typical_p < 1:
            return _typical(scaled, _all_of(scaled), params.typical_p)
        return scaled, _all_of(scaled)

    def _growing(self, scaled: Numbers) -> tuple[Numbers, Ids]:
        """Sorts as few candidates as hold the nucleus; their weights are those among all."""
        top_p, min_p, vocab = self._params.top_p, self._params.min_p, len(scaled)
        highest = scaled.max()
        total = np.exp(scaled - highest).sum()
        width = min(_FIRST_CANDIDATES, vocab)
        while True:
            ids = self._largest(scaled, width)
            values = scaled[ids]
            weights = np.exp(values - highest) / total
            if width == vocab or weights.sum() >= top_p or weights[-1] < min_p * weights[0]:
                return self._nucleus(values, ids, weights)
            width = min(width * 8, vocab)

    def _largest(self, values: Numbers, count: int) -> Ids:
        """As the function, in a fifth of the time where our own kernels run."""
        places = self._finder.places(values, count)
        return _largest(values, count) if places is None else places

    def _nucleus(self, values: Numbers, ids: Ids, weights: Numbers) -> tuple[Numbers, Ids]:
        """What top_p, min_p and typical_p leave of candidates sorted by weight; never nothing."""
        params = self._params
        kept = len(ids)
        if params.top_p < 1:  # the fewest that together reach it
            kept = min(kept, int(weights.cumsum().searchsorted(np.float32(params.top_p))) + 1)
        if params.min_p > 0:
            kept = min(kept, max(1, int((weights >= params.min_p * weights[0]).sum())))
        if params.typical_p < 1:
            return _typical(values[:kept], ids[:kept], params.typical_p)
        return values[:kept], ids[:kept]


def _largest(values: Numbers, count: int) -> Ids:
    """Places of the largest values, the largest first; of equal ones the first."""
    least = np.partition(values, -count)[-count]
    places = np.flatnonzero(values >= least)
    order = np.argsort(-values[places], kind="stable")[:count]
    return places[order].astype(np.int32)


def _all_of(values: Numbers) -> Ids:
    return np.arange(len(values), dtype=np.int32)


def _typical(values: Numbers, ids: Ids, typical_p: float) -> tuple[Numbers, Ids]:
    """The fewest whose surprise is nearest to the expected one and that together reach the share.

    Meister et al. 2022, "Locally Typical Sampling".
    """
    logprobs = _log_softmax(values)
    weights = np.exp(logprobs)
    expected = -(weights * logprobs).sum(where=weights > 0)
    distance = np.abs(-logprobs - expected)
    width = min(_FIRST_CANDIDATES, len(ids))
    while True:
        nearest = _largest(-distance, width)
        before = weights[nearest].cumsum() - weights[nearest]
        kept = max(1, int((before < typical_p).sum()))
        if kept < width or width == len(ids):
            return values[nearest[:kept]], ids[nearest[:kept]]
        width = min(width * 8, len(ids))


def _log_softmax(values: Numbers) -> Numbers:
    shifted = values - values.max()
    result: Numbers = shifted - np.log(np.exp(shifted).sum())
    return result


def _likeliest(logprobs: Numbers, count: int) -> tuple[LogProb, ...]:
    if not count:
        return ()
    places = _largest(logprobs, count)
    return tuple((int(place), float(logprobs[place])) for place in places)


def _drawn(values: Numbers, ids: Ids, words: Words) -> int:
    """The place of what is drawn among values with these ids."""
    if is_possible():
        return drawn(values, ids, words)
    return int((values + _gumbel(ids, words)).argmax())


def _gumbel(ids: Ids, words: Words) -> Numbers:
    """Standard Gumbel numbers, one for each token id. words: of the seed and the place.

    The 32-bit finaliser of MurmurHash3 (Appleby 2011) turns id, seed and place into 23 random bits,
    as many as make numbers between 0 and 1 that float32 holds exactly.
    """
    first, second = words
    bits = (ids.astype(np.uint32) * np.uint32(0x9E3779B1)) ^ first
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    bits = (bits ^ second ^ (bits >> np.uint32(16))) * np.uint32(0x846CA68B)
    bits ^= bits >> np.uint32(16)
    uniform = ((bits >> np.uint32(9)).astype(np.float32) + np.float32(0.5)) / np.float32(2**23)
    result: Numbers = -np.log(-np.log(uniform))
    return result


def _words(seed: int, place: int) -> Words:
    """Two words that depend on every bit of seed and place: SplitMix64 (Steele et al. 2014)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> shift)) * factor % 2**64
    mixed ^= mixed >> 31
    return np.uint32(mixed >> 32), np.uint32(mixed % 2**32)
