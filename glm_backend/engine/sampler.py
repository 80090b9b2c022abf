"""From logits to the next token, for one request.

The random numbers of a request depend on its seed, the place in the answer and the token id, and
on nothing else: not on who else is served, nor on the order in which near-equal candidates are
sorted. Logits of a request differ in the last bits with the company it keeps (matrix kernels sum
in another order for other shapes); with one number a candidate (the Gumbel-max trick, Maddison et
al. 2014) such a difference changes a token only when it is as large as the lead of the winner,
where one draw along the cumulative distribution would move every later border.

The order of the steps is that of transformers' generate(): repetition penalty, temperature,
top_k, top_p.
"""

from __future__ import annotations

import secrets

import torch
from torch import Tensor

from glm_backend.engine.request import MAX_SEED, SamplingParams

#: Candidates sorted at first; sorting a whole vocabulary costs milliseconds a token.
_FIRST_CANDIDATES = 256


class Sampler:
    """Chooses the tokens of one request."""

    def __init__(
        self, params: SamplingParams, prompt_ids: tuple[int, ...], vocab_size: int
    ) -> None:
        self._params = params
        self._seed = secrets.randbelow(MAX_SEED) if params.seed is None else params.seed
        self._place = 0
        self._seen: Tensor | None = None
        if params.repetition_penalty != 1:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool)
            self._seen[list(prompt_ids)] = True

    def choose(self, logits: Tensor) -> int:
        """The next token. logits: [vocab], float32, on the CPU, no NaN."""
        if self._seen is not None:
            logits = self._penalised(logits, self._seen)
        token = self._greedy(logits) if self._params.temperature == 0 else self._sampled(logits)
        if self._seen is not None:
            self._seen[token] = True
        return token

    def _penalised(self, logits: Tensor, seen: Tensor) -> Tensor:
        # Keskar et al. 2019 (CTRL), section 4.1, in the sign-aware form all libraries use.
        penalty = self._params.repetition_penalty
        pushed = torch.where(logits < 0, logits * penalty, logits / penalty)
        return torch.where(seen, pushed, logits)

    @staticmethod
    def _greedy(logits: Tensor) -> int:
        return int(logits.argmax())

    def _sampled(self, logits: Tensor) -> int:
        weights, ids = self._candidates(logits / self._params.temperature)
        self._place += 1
        noise = _gumbel(self._seed, self._place, ids)
        return int(ids[int((weights.double().log() + noise).argmax())])

    def _candidates(self, scaled: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and ids of the tokens that top_k and top_p leave, most likely first."""
        top_k, top_p = self._params.top_k, self._params.top_p
        vocab = scaled.shape[0]
        if 0 < top_k < vocab:
            values, ids = scaled.topk(top_k)
            return _nucleus(values.softmax(0), ids, top_p)
        if top_p == 1:
            return scaled.softmax(0), torch.arange(vocab)
        normaliser = scaled.logsumexp(0)
        width = min(_FIRST_CANDIDATES, vocab)
        while True:
            values, ids = scaled.topk(width)
            weights = (values - normaliser).exp()
            if width == vocab or weights.sum() >= top_p:
                return _nucleus(weights, ids, top_p)
            width = min(width * 8, vocab)


def _nucleus(weights: Tensor, ids: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The fewest tokens that together reach `top_p` (Holtzman et al. 2020), never none."""
    before = weights.cumsum(0) - weights
    kept = max(1, int((before < top_p).sum()))
    return weights[:kept], ids[:kept]


def _gumbel(seed: int, place: int, ids: Tensor) -> Tensor:
    """Standard Gumbel numbers, one for each token id: float64, [len(ids)].

    The finaliser of SplitMix64 (Steele et al. 2014) turns seed, place and id into 53 random bits.
    """
    key = _wrapped(seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03)
    bits = ids.long() * _wrapped(0xBF58476D1CE4E5B9) + key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = (bits ^ _shifted(bits, shift)) * _wrapped(factor)
    bits = bits ^ _shifted(bits, 31)
    uniform = (_shifted(bits, 11).double() + 0.5) / 2**53
    return -torch.log(-torch.log(uniform))


def _shifted(bits: Tensor, count: int) -> Tensor:
    """A logical shift to the right; torch's own keeps the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _wrapped(number: int) -> int:
    """The signed 64-bit integer with the same low bits."""
    return (number + 2**63) % 2**64 - 2**63
