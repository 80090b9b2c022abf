"""The batched pass against the model's own: on small models of several families, and for real."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    Glm4Config,
    Glm4ForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from glm_backend.engine.batch import Stretch
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.local import LocalEngine
from glm_backend.engine.request import Generation, SamplingParams, Token
from glm_backend.engine.runner import RaggedRunner, SoloRunner, runner_for
from glm_backend.language_model import LanguageModel
from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel

VOCAB = 128
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": None,
}
GLM = SMALL | {"head_dim": 16, "attention_bias": True, "pad_token_id": 0}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}


def small(kind: str, **changes: object) -> PreTrainedModel:
    """changes: of the sizes."""
    torch.manual_seed(0)
    size, glm = SMALL | changes, GLM | changes
    models = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**size)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**size)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**size, sliding_window=None)),
        "windowed": lambda: MistralForCausalLM(MistralConfig(**size, sliding_window=8)),
        "glm": lambda: GlmForCausalLM(GlmConfig(**glm)),
        "glm4": lambda: Glm4ForCausalLM(Glm4Config(**glm)),
        "dynamic": lambda: LlamaForCausalLM(LlamaConfig(**size, rope_parameters=DYNAMIC)),
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=VOCAB, n_embd=64, n_layer=2, n_head=4, eos_token_id=None)
        ),
        "mamba": lambda: MambaForCausalLM(
            MambaConfig(
                vocab_size=VOCAB,
                hidden_size=64,
                num_hidden_layers=2,
                state_size=8,
                eos_token_id=None,
            )
        ),
    }
    return models[kind]().eval()


def generated(module: PreTrainedModel, prompt: list[int], tokens: int) -> list[int]:
    """What transformers' generate() answers, greedily."""
    with torch.inference_mode():
        output = module.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
    return output[0, len(prompt) :].tolist()


def ids_of(generation: Generation) -> list[int]:
    return [event.token_id for event in generation.events() if isinstance(event, Token)]


def prompts_of(lengths: list[int], vocab: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(1)
    return [torch.randint(3, vocab, (n,), generator=random).tolist() for n in lengths]


@pytest.mark.parametrize(
    ("kind", "runner"),
    [
        ("llama", LeanRunner),
        ("qwen2", LeanRunner),
        ("mistral", LeanRunner),
        ("glm", LeanRunner),
        ("glm4", LeanRunner),
        ("windowed", RaggedRunner),
        ("gpt2", RaggedRunner),
        ("mamba", SoloRunner),
        ("dynamic", SoloRunner),
    ],
)
def test_greedy_answers_are_those_of_generate_alone_and_in_company(kind: str, runner: type) -> None:
    module = small(kind)
    prompts = prompts_of([3, 40, 17, 1, 90], VOCAB)
    expected = [generated(module, prompt, 20) for prompt in prompts]
    chosen = runner_for(module)
    assert type(chosen) is runner
    assert (chosen.held_bytes > 0) == isinstance(chosen, LeanRunner)
    engine = LocalEngine(
        chosen, name=kind, context_length=200, vocab_size=VOCAB, stop_ids=frozenset()
    )
    params = SamplingParams(temperature=0, max_new_tokens=20)
    alone = [ids_of(engine.submit(prompt, params)) for prompt in prompts]
    together = [ids_of(g) for g in [engine.submit(prompt, params) for prompt in prompts]]
    engine.close()
    assert alone == expected
    assert together == expected


def test_a_pass_that_failed_half_way_can_be_taken_again() -> None:
    module = small("windowed")
    runner = runner_for(module)
    runner.open(2, 12)
    prompt = prompts_of([12], VOCAB)[0]
    expected = runner.forward([Stretch(0, 0, prompt)])
    runner.forward([Stretch(1, 0, prompt[:5], scored=0)])
    broken = module.model.layers[1].mlp.down_proj
    module.model.layers[1].mlp.down_proj = torch.nn.Linear(1, 1)
    with pytest.raises(RuntimeError):
        runner.forward([Stretch(1, 5, prompt[5:])])
    module.model.layers[1].mlp.down_proj = broken
    again = runner.forward([Stretch(1, 5, prompt[5:])])
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)


def test_score_gives_the_models_own_logits() -> None:
    module = small("llama")
    prompt = prompts_of([30], VOCAB)[0]
    with torch.inference_mode():
        expected = module(torch.tensor([prompt])).logits[0].clone()
    torch.testing.assert_close(runner_for(module).score(prompt), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.starter
def test_the_starter_model_answers_exactly_as_generate_does(
    starter: LoadedModel, model_dir: Path
) -> None:
    questions = ["What is the capital of France?", "你好", "Write a haiku about rain.", "1+1=?"]
    prompts = [starter.prompt_ids([{"role": "user", "content": q}]) for q in questions]
    expected = [
        [token for token in generated(starter.module, prompt, 40) if token not in starter.eos_ids]
        for prompt in prompts
    ]
    model = LanguageModel(load(starter.id, model_dir=model_dir))
    params = SamplingParams(temperature=0, max_new_tokens=40)
    alone = [model.generate_ids(prompt, 40) for prompt in prompts]
    generations = [model.submit(p, params) for p in prompts]
    together = [ids_of(generation) for generation in generations]
    model.close()
    assert alone == expected
    assert together == expected


@pytest.mark.starter
def test_a_seeded_answer_is_the_same_alone_and_beside_neighbours(
    starter: LoadedModel, model_dir: Path
) -> None:
    model = LanguageModel(load(starter.id, model_dir=model_dir))
    prompt = starter.prompt_ids([{"role": "user", "content": "Tell me a story."}])
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=11, max_new_tokens=40)
    alone = ids_of(model.submit(prompt, params))
    others = [
        model.submit(prompt[: 5 + i], SamplingParams(seed=i, max_new_tokens=60)) for i in range(3)
    ]
    beside = ids_of(model.submit(prompt, params))
    for generation in others:
        ids_of(generation)
    model.close()
    assert alone == beside
    assert len(alone) > 5
