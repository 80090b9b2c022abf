"""ChatGLM2-6B's true shape, random weights, beside llama.cpp: `make bench-6b`.

Takes 23 GB of disk under .cache and some 15 minutes, most of which llama.cpp reads prompts. Each
run measures both programs and the memory itself one after the other: what memory gives changes on
a shared machine from one minute to the next, and decoding with it.
"""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from typing import Any

import torch

from benchmarks.checkpoint_6b import checkpoint, gguf_file
from benchmarks.peers.peer import Peer
from benchmarks.report import Row
from glm_backend.threads import cores

RUNS = 5
_STEPS = 24
_CONTEXT = 8192


def rows() -> list[Row]:
    """INT8 beside Q8_0, then INT4 beside Q4_0."""
    return [
        *_beside("int8", "Q8_0", decode=1.5, prefill=(128, 5.0), share=0.85, gigabytes=8.2),
        *_beside("int4", "Q4_0", decode=1.1, prefill=(512, 1.5), share=0.6, gigabytes=6.0),
    ]


def _beside(
    quantization: str,
    kind: str,
    *,
    decode: float,
    prefill: tuple[int, float],
    share: float,
    gigabytes: float,
) -> list[Row]:
    folder, file = str(checkpoint()), str(gguf_file(kind))
    tokens, prefill_goal = prefill
    with closing(Peer("glm_chat", folder, quantization)) as ours:
        memory = ours.ask("memory", tokens=_CONTEXT)
        with closing(Peer("llama_cpp", file, str(cores()))) as theirs:
            found = [_once(ours, theirs, tokens, run) for run in range(RUNS)]
    our_decode, their_decode, read, our_prefill, their_prefill = (
        statistics.median(column) for column in zip(*found, strict=True)
    )
    reached = statistics.median(memory["weights"] * run[0] / run[2] for run in found)
    peak = memory["peak"] / 1e9
    return [
        _against(f"6B shape, {quantization}, decode", our_decode, their_decode, kind, decode),
        _against(
            f"6B shape, {quantization}, prefill of {tokens}",
            our_prefill,
            their_prefill,
            kind,
            prefill_goal,
        ),
        Row(
            f"6B shape, {quantization}, share of the bandwidth limit",
            f"{reached:.2f}",
            f"{memory['weights'] / 1e9:.2f} GB a token, {read / 1e9:.1f} GB/s",
            f">= {share}",
            reached >= share,
        ),
        Row(
            f"6B shape, {quantization}, whole process with {_CONTEXT:,} tokens of context",
            f"{memory['now'] / 1e9:.2f} GB",
            f"highest, also while loading: {peak:.2f} GB; loaded in {memory['seconds']:.0f} s",
            f"<= {gigabytes} GB",
            peak <= gigabytes,
        ),
    ]


def _once(ours: Peer, theirs: Peer, tokens: int, run: int) -> tuple[float, ...]:
    """Decode ours, theirs; bytes a second of memory; prefill ours, theirs. Tokens a second."""
    our_prefill = tokens / ours.ask("prefill", tokens=tokens, seed=run)
    their_prefill = tokens / theirs.ask("prefill", tokens=tokens, seed=run)
    our_answer: Any = ours.ask("random_answer", tokens=32, steps=_STEPS, seed=run)
    read = _read_bandwidth()
    their_answer: Any = theirs.ask("answers", prompts=1, tokens=32, steps=_STEPS, seed=run)
    return _STEPS / our_answer[1], _STEPS / their_answer[1], read, our_prefill, their_prefill


def _against(what: str, ours: float, theirs: float, kind: str, goal: float) -> Row:
    ratio = ours / theirs
    return Row(
        what,
        f"{ours:.2f} tok/s",
        f"llama.cpp {kind} {theirs:.2f} tok/s: {ratio:.2f}",
        f">= {goal}",
        ratio >= goal,
    )


def _read_bandwidth() -> float:
    """Bytes a second that all cores read of memory, the best of some rounds."""
    numbers = torch.ones(2**28)  # 1 GB
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - started)
    return numbers.nbytes / best
