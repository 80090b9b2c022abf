"""transformers' generate(), and the original demo's way on it: every turn reads everything again.

python -m benchmarks.peers.transformers_generate FOLDER THREADS
"""

from __future__ import annotations

import sys
import time

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peers.peer import serve


class Generate:
    """One conversation at a time, as the demos of 2023 served them."""

    def __init__(self, folder: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._module.generation_config.eos_token_id = None

    def prefill(self, tokens: int, seed: int) -> float:
        """Seconds until the first token of an answer to so many random ones."""
        return self._generate(tokens, 1, seed)

    def answer(self, tokens: int, steps: int, seed: int) -> list[float]:
        """Seconds for the first token behind a prompt of so many, and for `steps` further ones."""
        first = self._generate(tokens, 1, seed)
        return [first, self._generate(tokens, steps + 1, seed) - first]

    def _generate(self, prompt: int, new: int, seed: int) -> float:
        config = self._module.config
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(10, config.vocab_size - 10, (1, prompt), generator=generator)
        mask = torch.ones_like(ids)
        started = time.perf_counter()
        with torch.inference_mode():
            self._module.generate(
                ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False
            )
        return time.perf_counter() - started


if __name__ == "__main__":
    peer = Generate(sys.argv[1], int(sys.argv[2]))
    serve({"prefill": peer.prefill, "answer": peer.answer})
