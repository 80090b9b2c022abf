"""llama.cpp by its own C interface, which its Python package hands through: greedy, batched.

python -m benchmarks.peers.llama_cpp FILE.gguf THREADS
"""

from __future__ import annotations

import sys
import time

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.peer import serve

_MOST_SEQUENCES = 16
_CONTEXT = 16384
_PORTION = 512


class LlamaCpp:
    """One context with room for several sequences."""

    def __init__(self, path: str, threads: int) -> None:
        llama.llama_backend_init()
        self._model = llama.llama_model_load_from_file(
            path.encode(), llama.llama_model_default_params()
        )
        self._vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self._model))
        params = llama.llama_context_default_params()
        params.n_ctx = _CONTEXT
        params.n_batch = params.n_ubatch = _PORTION
        params.n_seq_max = _MOST_SEQUENCES
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        self._context = llama.llama_init_from_model(self._model, params)
        self._memory = llama.llama_get_memory(self._context)
        self._batch = llama.llama_batch_init(_PORTION, 0, 1)

    def prefill(self, tokens: int, seed: int) -> float:
        """Seconds until the first token of an answer to so many random ones."""
        self._clear()
        prompt = self._random(tokens, seed)
        started = time.perf_counter()
        self._read([prompt])
        return time.perf_counter() - started

    def answers(self, prompts: int, tokens: int, steps: int, seed: int) -> list[float]:
        """Seconds for the first tokens of several answers, and for `steps` further ones of each.

        prompts: how many there are, of `tokens` random tokens each; all stand in each batch.
        """
        self._clear()
        started = time.perf_counter()
        last = self._read([self._random(tokens, seed + number) for number in range(prompts)])
        begun = time.perf_counter()
        for step in range(steps):
            self._decode([(n, tokens + step, token, True) for n, token in enumerate(last)])
            last = [int(self._logits(row).argmax()) for row in range(prompts)]
        return [begun - started, time.perf_counter() - begun]

    def negative_log_likelihood(self, ids: list[int]) -> float:
        """The mean over the tokens behind the first, in nats."""
        self._clear()
        total = 0.0
        for start in range(0, len(ids) - 1, _PORTION):
            part = ids[start : start + _PORTION]
            self._decode([(0, start + i, token, True) for i, token in enumerate(part)])
            for row, following in enumerate(ids[start + 1 : start + len(part) + 1]):
                logits = self._logits(row).astype(np.float64)
                total += float(np.logaddexp.reduce(logits) - logits[following])
        return total / (len(ids) - 1)

    def _read(self, prompts: list[list[int]]) -> list[int]:
        """Reads prompts, in portions across all of them; gives the likeliest token behind each."""
        rows = [
            (number, position, token, position == len(prompt) - 1)
            for number, prompt in enumerate(prompts)
            for position, token in enumerate(prompt)
        ]
        likeliest = []
        for start in range(0, len(rows), _PORTION):
            portion = rows[start : start + _PORTION]
            self._decode(portion)
            places = [place for place, row in enumerate(portion) if row[3]]
            likeliest += [int(self._logits(place).argmax()) for place in places]
        return likeliest

    def _decode(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """rows: sequence, position, token, whether its logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (sequence, position, token, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        if llama.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")

    def _logits(self, row: int) -> NDArray[np.float32]:
        pointer = llama.llama_get_logits_ith(self._context, row)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,))

    def _random(self, tokens: int, seed: int) -> list[int]:
        ids: list[int] = (
            np.random.default_rng(seed).integers(10, self._vocab_size - 10, tokens).tolist()
        )
        return ids

    def _clear(self) -> None:
        llama.llama_memory_clear(self._memory, True)


if __name__ == "__main__":
    peer = LlamaCpp(sys.argv[1], int(sys.argv[2]))
    serve(
        {
            "prefill": peer.prefill,
            "answers": peer.answers,
            "negative_log_likelihood": peer.negative_log_likelihood,
        }
    )
