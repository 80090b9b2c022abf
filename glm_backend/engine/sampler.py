"""From logits to the next token, for one request.

Each request has its own random numbers, drawn one a token, so its answer depends on its seed and
not on who else is served. The order of the steps is that of transformers' generate():
repetition penalty, temperature, top_k, top_p.
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
        self._random = torch.Generator().manual_seed(
            secrets.randbelow(MAX_SEED) if params.seed is None else params.seed
        )
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
        cumulative = weights.double().cumsum(0)
        drawn = torch.rand(1, generator=self._random, dtype=torch.float64) * cumulative[-1]
        place = int(torch.searchsorted(cumulative, drawn, right=True).clamp_(max=len(ids) - 1))
        return int(ids[place])

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
