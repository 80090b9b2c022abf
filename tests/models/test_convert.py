"""A model kept in few bits: the same numbers as when it is quantised anew, from a folder alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GlmConfig, Qwen2Config

from glm_backend.errors import (
    Cancelled,
    CheckpointDamaged,
    FileExists,
    FolderNotWritten,
    ModelUnsupported,
)
from glm_backend.language_model import LanguageModel
from glm_backend.models import convert as converting
from glm_backend.models.convert import convert
from glm_backend.models.loader import load, open_checkpoint
from glm_backend.models.model import Quantization
from glm_backend.models.new_folder import new_folder
from tests.models import chatglm_tiny
from tests.models import tiny as plain

FIRST = chatglm_tiny.first_config()
#: A prompt of the first generation, which every other model reads as any tokens.
IDS = [7, 41, 5, FIRST["gmask_token_id"], FIRST["bos_token_id"]]


def chatglm2(folder: Path) -> None:
    values = chatglm_tiny.config()
    width = values["num_layers"] * 2 * values["multi_query_group_num"] * values["kv_channels"]
    prefix = {"transformer.prefix_encoder.embedding.weight": torch.randn(6, width)}
    weights = chatglm_tiny.weights(values) | prefix
    chatglm_tiny.save(folder, values, weights, shards=2)
    (folder / "modeling_chatglm.py").write_text("raise SystemExit")


def chatglm3(folder: Path) -> None:
    values = chatglm_tiny.config(_name_or_path="here", rope_ratio=50)
    chatglm_tiny.save(folder, values, chatglm_tiny.weights(values), suffix=".safetensors")


def chatglm1(folder: Path) -> None:
    chatglm_tiny.save(folder, FIRST, chatglm_tiny.first_weights(FIRST), tokenizer=False)


def llama(folder: Path) -> None:
    plain.make(folder, plain.llama(hidden_size=80, intermediate_size=144, tie_word_embeddings=True))


def qwen2(folder: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": plain.VOCAB}
    plain.make(folder, Qwen2Config(**sizes, **heads))


def glm4(folder: Path) -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": plain.VOCAB}
    plain.make(folder, GlmConfig(**sizes, **heads, pad_token_id=0))


MAKERS: list[Callable[[Path], None]] = [chatglm2, chatglm3, chatglm1, llama, qwen2, glm4]
#: The folder of this one says nothing of its family.
FAMILIES = {chatglm3: "chatglm3"}


def unheard(stage: str, fraction: float) -> None:
    """For those who do not watch."""


def kept(source: Path, target: Path, quantization: Quantization, family: str | None = None) -> Path:
    checkpoint = open_checkpoint(source, model="tiny", family=family)
    convert(checkpoint, target, quantization, model="tiny", on_progress=unheard)
    return target


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def numbers(folder: Path, quantization: Quantization, family: str | None = None) -> Tensor:
    loaded = load(str(folder), quantization=quantization, family=family, model_dir=folder.parent)
    model = LanguageModel(loaded)
    logits = model.logits(IDS)
    model.close()
    return logits


@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_it_answers_as_if_it_were_quantised_anew(
    tmp_path: Path,
    make: Callable[[Path], None],
    quantization: Quantization,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(converting, "_SHARD_BYTES", 20_000)
    family = FAMILIES.get(make)
    make(tmp_path / "source")
    expected = numbers(tmp_path / "source", quantization, family)
    before = load(
        str(tmp_path / "source"), quantization=quantization, family=family, model_dir=tmp_path
    )
    target = kept(tmp_path / "source", tmp_path / "kept", quantization, family)
    assert len(shards(target)) > 1
    shutil.rmtree(tmp_path / "source")
    after = load(str(target), model_dir=tmp_path)
    assert after.quantization == quantization
    assert after.memory_bytes == before.memory_bytes
    assert (after.family, after.context_length) == (before.family, before.context_length)
    assert len(after.prefix) == len(before.prefix)
    if before.tokenizer is not None:
        assert after.tokenizer is not None
        assert after.tokenizer.encode("你好 world") == before.tokenizer.encode("你好 world")
    # Whatever is asked for: what is stored stays that.
    for asked in ("none", "int8", "int4"):
        assert torch.equal(numbers(target, asked), expected)
    assert not list(target.glob("*.py"))
    assert not list(tmp_path.glob(".*"))


def test_what_is_in_few_bits_is_not_converted(tmp_path: Path) -> None:
    llama(tmp_path / "source")
    target = kept(tmp_path / "source", tmp_path / "kept", "int8")
    with pytest.raises(ModelUnsupported, match="in few bits already"):
        kept(target, tmp_path / "again", "int4")
    values = chatglm_tiny.config(quantization_bit=4)
    published = chatglm_tiny.quantised(chatglm_tiny.weights(values), 4)
    chatglm_tiny.save(tmp_path / "published", values, published)
    with pytest.raises(ModelUnsupported, match="in few bits already"):
        kept(tmp_path / "published", tmp_path / "again", "int4")
    assert not (tmp_path / "again").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    llama(tmp_path / "source")
    (tmp_path / "kept").mkdir()
    with pytest.raises(FileExists, match="kept"):
        kept(tmp_path / "source", tmp_path / "kept", "int8")
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("at", ["quantizing", "writing"])
def test_who_stops_it_finds_nothing_left(tmp_path: Path, at: str) -> None:
    llama(tmp_path / "source")

    def stop(stage: str, fraction: float) -> None:
        if stage == at and fraction > 0.3:
            raise Cancelled(what="it")

    checkpoint = open_checkpoint(tmp_path / "source", model="tiny")
    with pytest.raises(Cancelled):
        convert(checkpoint, tmp_path / "kept", "int8", model="tiny", on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_full_disk_is_said_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    llama(tmp_path / "source")
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(FolderNotWritten, match=r"kept.*No space left"):
        kept(tmp_path / "source", tmp_path / "kept", "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_of_two_that_make_one_folder_the_first_is_kept_whole(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    theirs = tmp_path / f".kept.{other.pid}.partial"
    theirs.mkdir()
    with pytest.raises(FileExists), new_folder(tmp_path / "kept") as ours:
        (theirs / "file").write_text("theirs")
        (ours / "file").write_text("ours")
        theirs.rename(tmp_path / "kept")
    assert (tmp_path / "kept" / "file").read_text() == "theirs"
    theirs.mkdir()
    other.communicate(b"")
    with new_folder(tmp_path / "another"), new_folder(tmp_path / "kept.2"):
        assert theirs.exists()  # it is not theirs to remove
    shutil.rmtree(tmp_path / "kept")
    with new_folder(tmp_path / "kept"):
        assert not theirs.exists()


def _without(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def _wide(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name].to(torch.int32)


def _short(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name][:-1].contiguous()


def _narrow(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name][:, :-1].contiguous()


def _not_finite(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name][0] = torch.nan


@pytest.mark.parametrize(
    ("quantization", "part", "damage"),
    [
        ("int8", "q", _without),
        ("int8", "scale", _without),
        ("int8", "q", _wide),
        ("int8", "q", _short),
        ("int8", "q", _narrow),
        ("int8", "scale", _short),
        ("int8", "scale", _not_finite),
        ("int4", "zero", _without),
        ("int4", "packed", _wide),
        ("int4", "packed", _narrow),
        ("int4", "zero", _short),
        ("int4", "scale", _not_finite),
    ],
)
def test_damage_is_found_and_named(
    tmp_path: Path,
    quantization: Quantization,
    part: str,
    damage: Callable[[dict[str, Tensor], str], None],
) -> None:
    llama(tmp_path / "source")
    target = kept(tmp_path / "source", tmp_path / "kept", quantization)
    (file,) = shards(target)
    tensors = load_file(file)
    name = next(n for n in tensors if f".{quantization}." in n and n.endswith(part))
    damage(tensors, name)
    save_file(tensors, file)
    (target / "model.safetensors.index.json").unlink()
    file.rename(target / "model.safetensors")
    with pytest.raises(CheckpointDamaged, match=r"model\.safetensors"):
        load(str(target), model_dir=tmp_path)
