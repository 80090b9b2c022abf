"""ChatGLM2-6B's true shape, random weights, beside llama.cpp: `make bench-6b`.

Takes 23 GB of disk under .cache and some ten minutes. Each answer of ours, the memory itself and
llama.cpp's answer are measured one after the other: a virtual machine's cores are moved about, and
what they read of memory together changes by half when they come to share a way to it. Pairs of
answers within which that happens are left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NamedTuple

import torch

from benchmarks.checkpoint_6b import checkpoint, gguf_file
from benchmarks.peers.peer import Peer
from benchmarks.report import Row
from glm_backend.threads import cores

RUNS = 5
#: Of decoding, which follows the memory.
PAIRS = 24
_STEPS = 24
_CONTEXT = 8192
#: Cores that each have a way of their own to memory read so many times as much as one.
_APART = 1.6


class Pair(NamedTuple):
    """Tokens a second of one answer each, and bytes a second that the cores read of memory.

    apart: whether they did not share their way to it.
    """

    ours: float
    theirs: float
    read: float
    apart: bool


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
    tokens, prefill_goal = prefill
    with closing(Peer("glm_chat", str(checkpoint()), quantization)) as ours:
        memory = ours.ask("memory", tokens=_CONTEXT)
        with closing(Peer("llama_cpp", str(gguf_file(kind)), str(cores()))) as theirs:
            read = [_prefill(ours, theirs, tokens, run) for run in range(RUNS)]
            tried = [_decode(ours, theirs, run) for run in range(PAIRS)]
    pairs = [pair for pair in tried if pair is not None]
    shape, peer = f"6B shape, {quantization}", f"llama.cpp {kind}"
    reached = statistics.median(memory["weights"] * pair.ours / pair.read for pair in pairs)
    peak = memory["peak"] / 1e9
    return [
        *_decode_rows(shape, peer, pairs, decode),
        _against(f"{shape}, prefill of {tokens}", peer, read, prefill_goal),
        Row(
            f"{shape}, share of the bandwidth limit",
            f"{reached:.2f}",
            f"{memory['weights'] / 1e9:.2f} GB a token",
            f">= {share}",
            reached >= share,
        ),
        Row(
            f"{shape}, whole process with {_CONTEXT:,} tokens of context",
            f"{memory['now'] / 1e9:.2f} GB",
            f"highest, also while loading: {peak:.2f} GB; loaded in {memory['seconds']:.0f} s",
            f"<= {gigabytes} GB",
            peak <= gigabytes,
        ),
    ]


def _prefill(ours: Peer, theirs: Peer, tokens: int, run: int) -> tuple[float, float]:
    """Tokens a second."""
    our_s, their_s = (peer.ask("prefill", tokens=tokens, seed=run) for peer in (ours, theirs))
    return tokens / our_s, tokens / their_s


def _decode(ours: Peer, theirs: Peer, run: int) -> Pair | None:
    one_core = _read_bandwidth(1)
    read = [_read_bandwidth(cores())]
    our_answer: Any = ours.ask("random_answer", tokens=32, steps=_STEPS, seed=run)
    read.append(_read_bandwidth(cores()))
    their_answer: Any = theirs.ask("answers", prompts=1, tokens=32, steps=_STEPS, seed=run)
    read.append(_read_bandwidth(cores()))
    apart = {together > _APART * one_core for together in read}
    if len(apart) > 1:
        return None
    speeds = (_STEPS / answer[1] for answer in (our_answer, their_answer))
    return Pair(*speeds, read=statistics.median(read), apart=apart.pop())


def _decode_rows(shape: str, peer: str, pairs: list[Pair], goal: float) -> list[Row]:
    """One for each of the two ways in which the cores are connected, as far as there were both."""
    found = []
    for apart, what in ((True, "each core has its own"), (False, "the cores share one")):
        some = [pair for pair in pairs if pair.apart == apart]
        if some:
            memory = statistics.median(pair.read for pair in some) / 1e9
            where = f"way to memory: {what} ({memory:.0f} GB/s), {len(some)} of {len(pairs)} runs"
            found.append(_against(f"{shape}, decode; {where}", peer, some, goal))
    return found


def _against(what: str, peer: str, runs: Sequence[Sequence[float]], goal: float) -> Row:
    """runs: tokens a second of ours and of theirs, and perhaps more."""
    our_speed, their_speed = (statistics.median(run[n] for run in runs) for n in (0, 1))
    ratio = statistics.median(run[0] / run[1] for run in runs)
    return Row(
        what,
        f"{our_speed:.2f} tok/s",
        f"{peer} {their_speed:.2f} tok/s: {ratio:.2f}",
        f">= {goal}",
        ratio >= goal,
    )


def _read_bandwidth(threads: int) -> float:
    """Bytes a second that so many cores read of memory, the best of some rounds."""
    torch.set_num_threads(threads)
    numbers = torch.ones(2**27)  # 0.5 GB
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - started)
    return numbers.nbytes / best
