"""Speed of answers on the starter model: our engine against transformers' generate().

Both decode the same prompt greedily, in turn, in one process; ratios are taken pair by pair.
generate() gets as many kernel threads as the engine takes, and, in a second figure, all cores.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.report import Row
from glm_backend.engine.request import SamplingParams, Token
from glm_backend.language_model import LanguageModel
from glm_backend.models.loader import load

MODEL_DIR = Path(__file__).parents[1] / ".cache" / "models"
TOKENS = 96
RUNS = 5
ALL_CORES = os.cpu_count() or 1
QUESTION = [{"role": "user", "content": "Tell me a long story about a dragon and a lighthouse."}]


def rows() -> list[Row]:
    """One user, four users, and the precisions beside each other."""
    plain = load("smollm2-135m", model_dir=MODEL_DIR)
    generate = AutoModelForCausalLM.from_pretrained(MODEL_DIR / "smollm2-135m").eval()
    generate.generation_config.eos_token_id = None
    prompt = plain.prompt_ids(QUESTION)
    model = LanguageModel(plain)
    threads = torch.get_num_threads()
    peers, peers_all, ones, fours = [], [], [], []
    for run in range(RUNS + 1):
        measured = [_generate(generate, prompt, threads), _generate(generate, prompt, ALL_CORES)]
        torch.set_num_threads(threads)
        measured += [_ours(model, prompt, 1), _ours(model, prompt, 4)]
        if run:  # the first warms up
            for figures, figure in zip((peers, peers_all, ones, fours), measured, strict=True):
                figures.append(figure)
    model.close()
    same, every, gain = _ratio(ones, peers), _ratio(ones, peers_all), _ratio(fours, ones)
    one = f"{statistics.median(ones):.1f} tok/s"
    found = [
        Row(
            "decode, 1 user, fp32",
            one,
            f"generate(), {threads} thread(s), {statistics.median(peers):.1f} tok/s: {same:.2f}",
            ">= 1.0",
            same >= 1.0,
        ),
        Row(
            "decode, 1 user, fp32",
            one,
            f"generate(), all cores, {statistics.median(peers_all):.1f} tok/s: {every:.2f}",
        ),
        Row(
            "decode, 4 users, fp32",
            f"{statistics.median(fours):.1f} tok/s in all",
            f"1 user: {gain:.2f}",
            ">= 2.0",
            gain >= 2.0,
        ),
    ]
    return found + [_precision(q, statistics.median(ones)) for q in ("int8", "int4")]


def _ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios pair by pair."""
    return statistics.median(o / t for o, t in zip(ours, theirs, strict=True))


def _precision(quantization: str, plain_speed: float) -> Row:
    loaded = load("smollm2-135m", quantization=quantization, model_dir=MODEL_DIR)  # type: ignore[arg-type]
    memory = loaded.memory_bytes / 1e6
    prompt = loaded.prompt_ids(QUESTION)
    model = LanguageModel(loaded)
    ones = [_ours(model, prompt, 1) for _ in range(RUNS + 1)][1:]
    fours = [_ours(model, prompt, 4) for _ in range(3)]
    model.close()
    one, four = statistics.median(ones), statistics.median(fours)
    return Row(
        f"decode, 1 and 4 users, {quantization}",
        f"{one:.1f} and {four:.1f} tok/s, {memory:.0f} MB",
        f"fp32 of this run: ratio {one / plain_speed:.2f}; 4 users to 1: {four / one:.2f}",
    )


def _generate(module: torch.nn.Module, prompt: list[int], threads: int) -> float:
    torch.set_num_threads(threads)
    started = time.perf_counter()
    with torch.inference_mode():
        output = module.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=TOKENS,
            do_sample=False,
        )
    assert output.shape[1] == len(prompt) + TOKENS
    return TOKENS / (time.perf_counter() - started)


def _ours(model: LanguageModel, prompt: list[int], users: int) -> float:
    params = SamplingParams(temperature=0, max_new_tokens=TOKENS)
    started = time.perf_counter()
    answers = [model.submit(prompt, params, ignore_eos=True) for _ in range(users)]
    tokens = sum(isinstance(event, Token) for answer in answers for event in answer.events())
    assert tokens == users * TOKENS
    return tokens / (time.perf_counter() - started)
