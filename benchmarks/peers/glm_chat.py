"""This program's own engine, asked as the others are.

python -m benchmarks.peers.glm_chat MODEL QUANTIZATION
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.asking import answer, crowd, loaded, question, random_ids, timed
from benchmarks.peers.peer import serve
from benchmarks.process_memory import memory_bytes
from glm_backend.engine.batch import Stretch
from glm_backend.engine.native_runner import NativeRunner
from glm_backend.engine.request import SamplingParams
from glm_backend.models.model import Quantization


class Ours:
    """The engine behind one model."""

    def __init__(self, model: str, quantization: Quantization) -> None:
        started = time.perf_counter()
        self._model = loaded(model, quantization)
        self._load_s = time.perf_counter() - started

    def prefill(self, tokens: int, seed: int) -> float:
        """Seconds until the first token of an answer to so many random ones."""
        return answer(self._model, random_ids(self._model, tokens, seed), 1, seed).first

    def answer(self, steps: int, seed: int) -> list[float]:
        """Seconds for the first token behind a question, and for `steps` further ones."""
        took = answer(self._model, question(self._model, seed), steps + 1, seed)
        return [took.first, took.rest]

    def random_answer(self, tokens: int, steps: int, seed: int) -> list[float]:
        """The same behind random tokens, and drawn so that it does not repeat itself.

        Random weights fall into loops; guesses would come true, and be measured as speed.
        """
        ids = random_ids(self._model, tokens, seed)
        params = SamplingParams(
            temperature=2, top_p=1, repetition_penalty=2, max_new_tokens=steps + 1, seed=seed
        )
        took = timed(self._model.submit(ids, params, ignore_eos=True))
        return [took.first, took.rest]

    def memory(self, tokens: int) -> dict[str, float]:
        """Bytes: of weights read a token, of the process with a context of `tokens`, its most.

        The context's pages are taken as an answer of that length would take them.
        """
        runner: Any = self._model._runner
        self.prefill(16, 0)  # the tables of every layer are there then
        if isinstance(runner, NativeRunner):
            runner._slots.make_ready(Stretch(0, tokens - 1, [0]))
        else:
            runner._cache.make_ready(0, tokens)
        return {
            "weights": runner.held_bytes,
            "now": memory_bytes("VmRSS"),
            "peak": memory_bytes("VmHWM"),
            "seconds": self._load_s,
        }

    def crowd(self, users: int, steps: int, seed: int) -> float:
        """Tokens a second of several answers to questions, from the first question on."""
        return crowd(self._model, users, steps, seed)

    def next_turn(self, tokens: int, new: int, seed: int) -> float:
        """Seconds until the first token when a conversation of `tokens` goes on with `new`."""
        told, asked = random_ids(self._model, tokens, seed), random_ids(self._model, new, -1 - seed)
        answer(self._model, told, 1, seed)
        return answer(self._model, told + asked, 1, seed).first


if __name__ == "__main__":
    ours = Ours(sys.argv[1], sys.argv[2])  # type: ignore[arg-type] # load refuses what it does not know
    serve(
        {
            "prefill": ours.prefill,
            "answer": ours.answer,
            "random_answer": ours.random_answer,
            "memory": ours.memory,
            "crowd": ours.crowd,
            "next_turn": ours.next_turn,
        }
    )
