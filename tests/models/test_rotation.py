"""A turned model computes what it did before, and rounding it costs less."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import MistralConfig, PretrainedConfig, Qwen2Config

from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.models import rotation
from glm_backend.models.assembly import Placement, assemble
from glm_backend.models.loader import load, open_checkpoint
from glm_backend.models.model import LoadedModel
from glm_backend.models.rotation import Rotation
from tests.models import chatglm_tiny, tiny

README = Path(__file__).parents[2] / "README.md"
IDS = chatglm_tiny.ids(24, below=200)


def mistral() -> MistralConfig:
    config = tiny.llama().to_dict() | {"sliding_window": None}
    return MistralConfig(**{k: v for k, v in config.items() if k != "model_type"})


def qwen2() -> Qwen2Config:
    config = tiny.llama().to_dict() | {"tie_word_embeddings": True}
    return Qwen2Config(**{k: v for k, v in config.items() if k != "model_type"})


def chatglm2(folder: Path) -> Path:
    values = chatglm_tiny.config()
    return chatglm_tiny.save(folder, values, chatglm_tiny.weights(values))


def logits(module: torch.nn.Module, ids: Sequence[int] = IDS) -> Tensor:
    with torch.inference_mode():
        output: Tensor = module(input_ids=torch.tensor([list(ids)])).logits[0]
    return output


def turned(folder: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The model of a folder as it is, and with all of its weights turned; both in float32."""
    checkpoint = open_checkpoint(folder, model="m")
    place = Placement("none", torch.float32, torch.device("cpu"))
    plain, other = (
        assemble(checkpoint, place, model="m", on_fraction=lambda done: None) for _ in range(2)
    )
    other.lm_head.weight = torch.nn.Parameter(other.lm_head.weight.clone())  # no longer tied
    rotation = Rotation(checkpoint)
    weights = {}
    for stored, weight in checkpoint.stream(lambda done: None):
        for name, tensor in rotation.turned(stored, weight):
            through = rotation.through(name)
            weights[name] = tensor if through is None else through(tensor)
    other.load_state_dict(weights)
    return plain, other


@pytest.mark.parametrize(
    "config",
    [tiny.llama(), tiny.llama(attention_bias=True, mlp_bias=True), mistral(), qwen2()],
    ids=["llama", "llama with biases", "mistral", "qwen2 with a tied head"],
)
def test_a_turned_model_computes_the_same(tmp_path: Path, config: PretrainedConfig) -> None:
    tiny.make(tmp_path, config)
    plain, other = turned(tmp_path)
    assert not torch.allclose(plain.model.embed_tokens.weight, other.model.embed_tokens.weight)
    torch.testing.assert_close(logits(other), logits(plain), atol=1e-4, rtol=1e-4)


def test_a_turned_chatglm_computes_the_same(tmp_path: Path) -> None:
    plain, other = turned(chatglm2(tmp_path / "chatglm2"))
    torch.testing.assert_close(logits(other), logits(plain), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 24, 64, 576])
def test_the_matrix_is_orthogonal_at_any_size(size: int) -> None:
    matrix = rotation._cosines(size)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(size), atol=1e-5, rtol=0)


def test_int8_is_closer_to_full_precision_when_turned(
    starter: LoadedModel, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert starter.tokenizer is not None
    ids = starter.tokenizer.encode(README.read_text("utf-8"))[:256]
    plain = torch.log_softmax(logits(starter.module, ids), -1)

    def lost() -> float:
        """Nats a token (Kullback-Leibler)."""
        module = load(starter.id, quantization="int8", model_dir=model_dir).module
        other = torch.log_softmax(LeanRunner(module).score(ids), -1)
        return float((plain.exp() * (plain - other)).sum(-1).mean())

    with_it = lost()
    monkeypatch.setattr(Rotation, "takes", lambda checkpoint: False)
    assert 0 < with_it < lost() / 2


def test_published_integers_and_norms_behind_a_block_are_left_alone(tmp_path: Path) -> None:
    values = chatglm_tiny.config(quantization_bit=8)
    weights = chatglm_tiny.quantised(chatglm_tiny.weights(values), 8)
    folder = chatglm_tiny.save(tmp_path / "chatglm2-int8", values, weights)
    assert not Rotation.takes(open_checkpoint(folder, model="m"))
    assert Rotation.takes(open_checkpoint(chatglm2(tmp_path / "chatglm2"), model="m"))
