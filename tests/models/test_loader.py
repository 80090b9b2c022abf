"""A name or a folder becomes a model that answers exactly as transformers' own loading makes it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    Glm4Config,
    GlmConfig,
    GPT2Config,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from glm_backend.errors import Cancelled, DownloadFailed, ModelMissing, ModelUnsupported
from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel
from tests.models import chatglm_tiny, tiny
from tests.models.hub_server import Hub

SMALL = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}
ARCHITECTURES = {
    "llama": tiny.llama(),
    "llama tied": tiny.llama(tie_word_embeddings=True),
    "llama yarn": tiny.llama(rope_parameters=YARN),
    "qwen2 with biases": Qwen2Config(**SMALL),
    "glm": GlmConfig(**SMALL),
    "glm4": Glm4Config(**SMALL),
    "mistral": MistralConfig(**SMALL),
    "gemma": GemmaConfig(**SMALL),
    "gpt2": GPT2Config(vocab_size=tiny.VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=64),
}


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(1, 30)[None]
    with torch.inference_mode():
        out: torch.Tensor = model(ids).logits
    return out


@pytest.mark.parametrize("config", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())
def test_logits_are_bit_equal_to_those_of_transformers(
    config: PretrainedConfig, tmp_path: Path
) -> None:
    tiny.make(tmp_path, config)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ours = load(str(tmp_path), model_dir=tmp_path)
    assert torch.equal(logits(ours.module), logits(oracle))
    assert not ours.module.training
    assert not any(p.requires_grad for p in ours.module.parameters())


def test_the_starter_is_bit_equal_to_transformers(starter: LoadedModel, model_dir: Path) -> None:
    oracle = AutoModelForCausalLM.from_pretrained(
        model_dir / "smollm2-135m", dtype=torch.float32
    ).eval()
    assert torch.equal(logits(starter.module), logits(oracle))


def test_the_facts_of_the_starter(starter: LoadedModel) -> None:
    assert (starter.id, starter.family, starter.english_first) == ("smollm2-135m", "llama", True)
    assert (starter.context_length, starter.vocab_size) == (8192, 49_152)
    assert starter.eos_ids == {2}
    assert starter.memory_bytes == pytest.approx(134_515_008 * 4, rel=0.001)


def test_a_head_that_is_stored_alone_is_shared_with_the_embedding(tmp_path: Path) -> None:
    tiny.make(tmp_path, tiny.llama(tie_word_embeddings=True))
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("model.embed_tokens.weight")
    save_file(weights, tmp_path / "model.safetensors")
    module = load(str(tmp_path), model_dir=tmp_path).module
    assert module.lm_head.weight is module.model.embed_tokens.weight


def test_every_end_that_the_folder_names_ends_an_answer(tmp_path: Path) -> None:
    tiny.make(tmp_path, tiny.llama(eos_token_id=[3, 5]))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert load(str(tmp_path), model_dir=tmp_path).eos_ids == {0, 3, 5, 7, 9}


def test_max_context_only_makes_it_shorter(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    lengths = [
        load(str(tmp_path), model_dir=tmp_path, max_context=limit).context_length
        for limit in (0, 100, 10_000)
    ]
    assert lengths == [256, 100, 256]


def test_bfloat16_is_taken_when_it_is_asked_for(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    ours = load(str(tmp_path), model_dir=tmp_path, dtype="bfloat16")
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert ours.dtype is torch.bfloat16
    assert torch.equal(logits(ours.module), logits(oracle))


def test_a_folder_without_tokenizer_loads_and_says_so_when_asked(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    for path in tmp_path.glob("*token*"):
        path.unlink()
    model = load(str(tmp_path), model_dir=tmp_path)
    assert model.tokenizer is None
    with pytest.raises(ModelUnsupported, match=r"tokenizer\.json"):
        model.prompt_ids([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("device", ["cuda:99", "meta", "toaster"])
def test_a_device_that_is_not_there(tmp_path: Path, device: str) -> None:
    tiny.make(tmp_path)
    with pytest.raises(ModelUnsupported, match=device):
        load(str(tmp_path), model_dir=tmp_path, device=device)


def test_a_listed_model_is_fetched_from_the_hub_once(tmp_path: Path) -> None:
    tiny.make(tmp_path / "theirs", GlmConfig(**SMALL))
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    stages: list[str] = []
    with Hub("THUDM/glm-4-9b-chat-hf", files) as hub:
        for _ in range(2):
            model = load(
                "glm-4-9b-chat-hf",
                model_dir=tmp_path / "models",
                on_progress=lambda stage, _: stages.append(stage),
                hub_endpoint=hub.endpoint,
            )
        assert len(hub.ranges("model.safetensors")) == 1
    assert list(dict.fromkeys(stages)) == ["downloading", "reading", "starting"]
    assert (model.name, model.family, model.english_first) == ("GLM-4-9B-Chat", "glm", False)


def test_a_listed_chatglm_is_fetched_with_all_it_needs_and_no_program(tmp_path: Path) -> None:
    config = chatglm_tiny.config()
    weights = chatglm_tiny.quantised(chatglm_tiny.weights(config), 4)
    config["quantization_bit"] = 4
    theirs = chatglm_tiny.save(tmp_path / "theirs", config, weights, shards=2)
    (theirs / "modeling_chatglm.py").write_text("raise SystemExit")
    (theirs / "quantization.py").write_text("raise SystemExit")
    files = {path.name: path.read_bytes() for path in theirs.iterdir()}
    with Hub("THUDM/chatglm2-6b-int4", files) as hub:
        model = load("chatglm2-6b-int4", model_dir=tmp_path / "ours", hub_endpoint=hub.endpoint)
    assert (model.name, model.family, model.quantization) == (
        "ChatGLM2-6B INT4",
        "chatglm2",
        "int4",
    )
    assert model.prompt_ids([{"role": "user", "content": "你好"}])
    fetched = {path.name for path in (tmp_path / "ours" / "chatglm2-6b-int4").iterdir()}
    assert fetched == {name for name in files if not name.endswith(".py")}


def test_any_repository_of_the_hub_is_fetched_by_its_name(tmp_path: Path) -> None:
    tiny.make(tmp_path / "theirs")
    files = {path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()}
    with Hub("team/small-llama", files) as hub:
        ours = {"model_dir": tmp_path / "models", "hub_endpoint": hub.endpoint}
        model = load("team/small-llama", **ours)  # type: ignore[arg-type]
        again = load("team/small-llama", **ours)  # type: ignore[arg-type]
        assert len(hub.ranges("model.safetensors")) == 1
        with pytest.raises(DownloadFailed, match="team/other"):
            load("team/other", **ours)  # type: ignore[arg-type]
    assert model.name == again.name == "team/small-llama"
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == [
        "team--small-llama"
    ]


@pytest.mark.parametrize("repo", ["THUDM/chatglm2-6b-int4", "zai-org/chatglm2-6b-int4"])
def test_a_listed_model_has_the_names_of_its_repository_too(repo: str, tmp_path: Path) -> None:
    config = chatglm_tiny.config()
    chatglm_tiny.save(tmp_path / "chatglm2-6b-int4", config, chatglm_tiny.weights(config))
    assert load(repo, model_dir=tmp_path).name == "ChatGLM2-6B INT4"


def test_a_folder_goes_before_a_repository_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make(tmp_path / "THUDM" / "chatglm2-6b")
    monkeypatch.chdir(tmp_path)
    assert load("THUDM/chatglm2-6b", model_dir=tmp_path / "models").family == "llama"


@pytest.mark.parametrize("name", ["../etc", "a/b/c", "a/..", ".a/b", "a/", "/a", "no folder"])
def test_what_is_neither_a_folder_nor_a_name_is_said_at_once(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="owner/name"):
        load(name, model_dir=tmp_path)


def test_progress_goes_forward_and_can_stop_the_work(tmp_path: Path) -> None:
    tiny.make(tmp_path)
    seen: list[tuple[str, float]] = []
    load(str(tmp_path), model_dir=tmp_path, on_progress=lambda *step: seen.append(step))
    reading = [done for stage, done in seen if stage == "reading"]
    assert reading == sorted(reading)
    assert (reading[0], reading[-1]) == (0.0, 1.0)
    assert seen[-1] == ("starting", 1.0)

    def stop(stage: str, done: float) -> None:
        if done > 0.5:
            raise Cancelled(what="the test")

    with pytest.raises(Cancelled):
        load(str(tmp_path), model_dir=tmp_path, on_progress=stop)
