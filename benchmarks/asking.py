"""Our side of a measurement: answers of the engine, and how long they took."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.questions import QUESTIONS
from glm_backend.engine.request import Generation, SamplingParams, Token
from glm_backend.language_model import LanguageModel
from glm_backend.models.loader import load
from glm_backend.models.model import Quantization
from glm_backend.threads import apart

MODEL_DIR = Path(__file__).parents[1] / ".cache" / "models"
STARTER = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds until the first token was there, and from there to the last of `tokens`."""

    first: float
    rest: float
    tokens: int


def loaded(model: str, quantization: Quantization) -> LanguageModel:
    """A model ready to answer, sixteen at once."""
    return apart(
        lambda: LanguageModel(
            load(model, quantization=quantization, model_dir=MODEL_DIR), max_concurrent=16
        )
    )


def question(model: LanguageModel, number: int) -> list[int]:
    """A question as the model's own prompt."""
    text = QUESTIONS[number % len(QUESTIONS)]
    return model.prompt_ids([{"role": "user", "content": text}])


def random_ids(model: LanguageModel, tokens: int, seed: int) -> list[int]:
    """A prompt that nobody has asked before."""
    chance = random.Random(seed)
    return [chance.randrange(10, model.vocab_size - 10) for _ in range(tokens)]


def answer(model: LanguageModel, prompt: Sequence[int], new: int, seed: int) -> Took:
    """One answer, drawn as people have them drawn: guesses seldom come true."""
    return timed(model.submit(prompt, drawn(new, seed), ignore_eos=True))


def timed(answer: Generation) -> Took:
    """Reads an answer to its end; asked for just now."""
    started = time.perf_counter()
    events = answer.events()
    next(events)
    first = time.perf_counter()
    tokens = sum(isinstance(event, Token) for event in events)
    return Took(first - started, time.perf_counter() - first, tokens)


def crowd(model: LanguageModel, users: int, new: int, seed: int) -> float:
    """Tokens a second of all answers together, from the first question to the last token."""
    prompts = [question(model, seed + user) for user in range(users)]
    started = time.perf_counter()
    answers = [
        model.submit(prompt, drawn(new, seed * users + user), ignore_eos=True, client=str(user))
        for user, prompt in enumerate(prompts)
    ]
    tokens = sum(isinstance(event, Token) for a in answers for event in a.events())
    return tokens / (time.perf_counter() - started)


def drawn(new: int, seed: int) -> SamplingParams:
    """The parameters of the dashboard's own defaults."""
    return SamplingParams(temperature=0.8, top_p=0.9, top_k=50, max_new_tokens=new, seed=seed)
