"""The starter model beside llama.cpp with the same file, generate(), and the demos' way.

Every program is a process of its own; they are asked in turn, so that all meet the same machine.
Answers are drawn with the dashboard's parameters, so that guesses seldom come true; llama.cpp takes
the likeliest token each time, which costs it less.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack, closing

from benchmarks.asking import MODEL_DIR, STARTER
from benchmarks.peers.peer import Peer
from benchmarks.report import Row
from glm_backend.models.starter import find_gguf
from glm_backend.threads import cores

RUNS = 5
QUANTIZATIONS = ("none", "int8", "int4")
_STEPS = 64
_CROWD_STEPS, _QUESTION = 64, 40  # tokens of an answer, and of a question with its template
_TOLD, _ASKED = 1960, 40

#: Tokens a second, by program and run.
Speeds = dict[str, list[float]]


def rows() -> list[Row]:
    """Decode, prefill, many users, and the first token of a later turn."""
    with ExitStack() as stack:

        def started(*arguments: str) -> Peer:
            return stack.enter_context(closing(Peer(*arguments)))

        llama = {"llama.cpp Q4_1": started("llama_cpp", str(find_gguf()), str(cores()))}
        folder = str(MODEL_DIR / STARTER)
        generate = {"generate()": started("transformers_generate", folder, str(cores()))}
        ours = {q: started("glm_chat", STARTER, q) for q in QUANTIZATIONS}
        decode = _in_turn({**llama, **generate, **ours}, _decode)
        prefill = _in_turn({**llama, **generate, **ours}, _prefill)
        eight = _in_turn({**llama, **ours}, lambda peer, name, run: _crowd(peer, name, run, 8))
        sixteen = _in_turn({**llama, **ours}, lambda peer, name, run: _crowd(peer, name, run, 16))
        turns = _in_turn({"none": ours["none"], **generate}, _turn)
    return [
        _compared("starter, decode, 1 user", decode, 1.0),
        _compared("starter, prefill of 512", prefill, 3.0),
        _compared("starter, 8 users", eight, 1.8),
        _compared("starter, 16 users", sixteen, 2.5),
        _sooner(turns),
    ]


def _in_turn(peers: dict[str, Peer], measure: Callable[[Peer, str, int], float]) -> Speeds:
    """Each measures once a run, one after the other; a run before the first warms up."""
    speeds: Speeds = {name: [] for name in peers}
    for run in range(RUNS + 1):
        for name, peer in peers.items():
            speed = measure(peer, name, run)
            if run:
                speeds[name].append(speed)
    return speeds


def _prefill(peer: Peer, name: str, run: int) -> float:
    return 512 / float(peer.ask("prefill", tokens=512, seed=run))


def _decode(peer: Peer, name: str, run: int) -> float:
    if name.startswith("llama.cpp"):
        took = peer.ask("answers", prompts=1, tokens=_QUESTION, steps=_STEPS, seed=run)
    elif name == "generate()":
        took = peer.ask("answer", tokens=_QUESTION, steps=_STEPS, seed=run)
    else:
        took = peer.ask("answer", steps=_STEPS, seed=run)
    return float(_STEPS / took[1])


def _crowd(peer: Peer, name: str, run: int, users: int) -> float:
    """From the first question to the last token, over all answers."""
    if name.startswith("llama.cpp"):
        steps = _CROWD_STEPS - 1
        took = peer.ask("answers", prompts=users, tokens=_QUESTION, steps=steps, seed=run)
        return users * _CROWD_STEPS / sum(took)
    return float(peer.ask("crowd", users=users, steps=_CROWD_STEPS, seed=run))


def _turn(peer: Peer, name: str, run: int) -> float:
    if name == "none":
        return float(peer.ask("next_turn", tokens=_TOLD, new=_ASKED, seed=run))
    return float(peer.ask("prefill", tokens=_TOLD + _ASKED, seed=run))


def _compared(what: str, speeds: Speeds, goal: float) -> Row:
    """The best of ours against llama.cpp, and every figure behind it."""
    against = speeds["llama.cpp Q4_1"]
    best = max(QUANTIZATIONS, key=lambda q: statistics.median(speeds[q]))
    ratio = statistics.median(o / t for o, t in zip(speeds[best], against, strict=True))
    every = ", ".join(f"{name} {statistics.median(found):.0f}" for name, found in speeds.items())
    return Row(
        f"{what}, {best}",
        f"{statistics.median(speeds[best]):.0f} tok/s",
        f"{ratio:.2f} of llama.cpp Q4_1; tok/s: {every}",
        f">= {goal}",
        ratio >= goal,
    )


def _sooner(seconds: Speeds) -> Row:
    ours, theirs = statistics.median(seconds["none"]), statistics.median(seconds["generate()"])
    return Row(
        f"first token of turn 10, {_TOLD + _ASKED:,} tokens, fp32",
        f"{ours * 1e3:.0f} ms",
        f"everything read again, as the demos did: {theirs * 1e3:.0f} ms; {theirs / ours:.1f} x",
        ">= 10 x",
        theirs / ours >= 10,
    )
