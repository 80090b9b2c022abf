"""Reading a model folder with suspicion: whole, consistent, and never a program."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig

from glm_backend.errors import CheckpointDamaged, ModelError, ModelMissing, ModelUnsupported
from glm_backend.models import weight_files
from glm_backend.models.checkpoint import Checkpoint
from glm_backend.models.loader import load, prepare
from tests.models import tiny

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny.make(folder)
    return folder


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    tiny.make(folder, max_shard_size="100KB")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sharded, tmp_path / "shards"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def refused(folder: Path) -> ModelError:
    """The error of checking `folder`, which must be the same as that of loading it."""
    with pytest.raises(ModelError) as caught:
        prepare(str(folder), model_dir=folder.parent)
    with pytest.raises(type(caught.value)):
        load(str(folder), model_dir=folder.parent)
    return caught.value


def test_a_whole_folder_passes(folder: Path, shards: Path) -> None:
    for good in (folder, shards):
        checkpoint = prepare(str(good), model_dir=good.parent)
        seen: list[int] = []
        names = {name for name, _ in checkpoint.stream(seen.append)}
        assert names == set(checkpoint.tensors)
        assert seen == sorted(seen)
        assert seen[-1] == checkpoint.size_bytes


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    for source in (str(tmp_path / "nothing"), "no-such-model", "\0", "x" * 5000):
        with pytest.raises(ModelMissing, match="smollm2-135m"):
            prepare(source, model_dir=tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    assert isinstance(refused(tmp_path), ModelMissing)


def test_a_folder_without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert isinstance(refused(folder), ModelMissing)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"model_type": 7}', "[" * 100_000, "\udcff"]
)
def test_a_config_that_is_no_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    error = refused(folder)
    assert isinstance(error, CheckpointDamaged)
    assert "config.json" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "many"},
        {"hidden_size": -64},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"vocab_size": 10**30},
        {"hidden_act": "__import__('os')"},
        {"rope_parameters": {"rope_type": "no such thing"}},
    ],
    ids=str,
)
def test_a_config_whose_values_make_no_model(folder: Path, change: dict[str, object]) -> None:
    edit(folder / "config.json", lambda config: config.update(change))
    error = refused(folder)
    assert isinstance(error, CheckpointDamaged)


@pytest.mark.parametrize("model_type", ["t5", "no-such-type", "__class__"])
def test_a_model_type_that_is_not_read(folder: Path, model_type: str) -> None:
    edit(folder / "config.json", lambda config: config.update(model_type=model_type))
    error = refused(folder)
    assert isinstance(error, ModelUnsupported)


def test_weights_that_are_quantised_in_another_way(folder: Path) -> None:
    other = {"quant_method": "gptq", "bits": 4}
    edit(folder / "config.json", lambda config: config.update(quantization_config=other))
    assert isinstance(refused(folder), ModelUnsupported)


def test_a_mixture_of_experts_is_refused_honestly(tmp_path: Path) -> None:
    config = MixtralConfig(
        vocab_size=tiny.VOCAB,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    tiny.make(tmp_path, config)
    error = refused(tmp_path)
    assert isinstance(error, ModelUnsupported)
    assert "mixtral" in str(error)


def test_no_code_of_the_folder_or_the_hub_runs(folder: Path, tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')"
    (folder / "modeling_evil.py").write_text(trap)
    (folder / "configuration_evil.py").write_text(trap)
    (folder / "tokenization_evil.py").write_text(trap)
    hostile = {
        "auto_map": {
            "AutoConfig": "configuration_evil.EvilConfig",
            "AutoModelForCausalLM": "modeling_evil.Evil",
        },
        "architectures": ["Evil"],
        "_attn_implementation_internal": "evil/kernels",
        "_experts_implementation_internal": "evil/kernels",
        "attn_implementation": "evil/kernels",
        "_attn_implementation": "evil/kernels",
    }
    edit(folder / "config.json", lambda config: config.update(hostile))
    edit(
        folder / "tokenizer_config.json",
        lambda config: config.update(
            tokenizer_class="EvilTokenizer",
            auto_map={"AutoTokenizer": ["tokenization_evil.Evil", None]},
        ),
    )
    model = load(str(folder), model_dir=tmp_path)
    assert model.module.config._attn_implementation == "sdpa"
    assert type(model.module).__name__ == "LlamaForCausalLM"
    assert model.prompt_ids([{"role": "user", "content": "hi"}])
    assert not (tmp_path / "ran").exists()


def test_a_pickle_with_code_is_refused(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "ran"), "w"))

    (folder / WEIGHTS).unlink()
    torch.save({"lm_head.weight": Evil()}, folder / "pytorch_model.bin")
    assert isinstance(refused(folder), CheckpointDamaged)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    assert isinstance(refused(folder), CheckpointDamaged)
    assert not (tmp_path / "ran").exists()


def test_a_bin_file_loads_as_well(folder: Path) -> None:
    want = load(str(folder), model_dir=folder).module.state_dict()
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    got = load(str(folder), model_dir=folder).module.state_dict()
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


@pytest.mark.parametrize("content", [[1, 2], {"lm_head.weight": 3}])
def test_a_bin_file_of_something_else(folder: Path, content: object) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(content, folder / "pytorch_model.bin")
    assert isinstance(refused(folder), CheckpointDamaged)


@pytest.mark.parametrize("kept", [0, 4, 100, 20_000])
def test_a_truncated_file_is_named(folder: Path, kept: int) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    error = refused(folder)
    assert isinstance(error, CheckpointDamaged)
    assert str(path) in str(error)
    assert "fetch it again" in str(error)


def test_a_truncated_shard_is_named(shards: Path) -> None:
    shard = sorted(shards.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-10])
    error = refused(shards)
    assert isinstance(error, CheckpointDamaged)
    assert str(shard) in str(error)
    assert "cut short" in str(error)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 1234\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "it is empty"), (POINTER, "git lfs pull brings")]
)
def test_a_file_that_was_never_fetched_is_told_from_a_damaged_one(
    folder: Path, name: str, content: bytes, reason: str
) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    message = str(refused(folder))
    assert name in message
    assert reason in message


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html>\xe9chec",
        b"\0" * 5000,
        b"\x80\x02.",
        b"\x80\x02}q\x00(X\x04\x00\x00\x00\xff\xff\xff\xff",
        b"\x80\x02(K\x01s.",
        b"\x80\x02I1x\n.",
        pickle.dumps({"lm_head.weight": os.system}),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_no_bytes_make_a_bin_file_more_than_damaged(
    folder: Path, content: bytes, zipped: bool
) -> None:
    file = folder / "pytorch_model.bin"
    (folder / "model.safetensors").unlink()
    if zipped:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", content)
            archive.writestr("archive/version", "3\n")
    else:
        file.write_bytes(content)
    message = str(refused(folder))
    assert str(file) in message
    assert "weights_only" not in message


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1), byte=st.integers(0, 255), legacy=st.booleans())
def test_a_bin_file_with_a_wrong_byte_is_read_or_refused(
    tmp_path: Path, place: float, byte: int, legacy: bool
) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=not legacy)
    content = bytearray(file.read_bytes())
    content[int(place * (len(content) - 1))] = byte
    file.write_bytes(content)
    with contextlib.suppress(CheckpointDamaged):
        weight_files.headers(file)


def test_a_truncated_bin_is_named(folder: Path) -> None:
    path = folder / "pytorch_model.bin"
    torch.save(load_file(folder / WEIGHTS), path)
    (folder / WEIGHTS).unlink()
    path.write_bytes(path.read_bytes()[:-1000])
    error = refused(folder)
    assert isinstance(error, CheckpointDamaged)
    assert str(path) in str(error)


def test_a_missing_shard_is_named(shards: Path) -> None:
    shard = sorted(shards.glob("model-*.safetensors"))[0]
    shard.unlink()
    error = refused(shards)
    assert isinstance(error, CheckpointDamaged)
    assert shard.name in str(error)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "..", "a/b.safetensors", 7])
def test_an_index_cannot_name_files_elsewhere(shards: Path, name: object) -> None:
    index = shards / "model.safetensors.index.json"
    edit(index, lambda value: value["weight_map"].update({"lm_head.weight": name}))
    error = refused(shards)
    assert isinstance(error, CheckpointDamaged)
    assert index.name in str(error)


def test_an_index_that_promises_too_much(shards: Path) -> None:
    index = shards / "model.safetensors.index.json"
    shard = sorted(shards.glob("model-*.safetensors"))[0].name
    edit(index, lambda value: value["weight_map"].update({"no.such.tensor": shard}))
    error = refused(shards)
    assert "no.such.tensor" in str(error)


def test_a_missing_weight_is_never_made_up(folder: Path) -> None:
    edit_weights(folder, lambda w: w.pop("model.layers.1.mlp.down_proj.weight"))
    error = refused(folder)
    assert isinstance(error, CheckpointDamaged)
    assert "lack model.layers.1.mlp.down_proj.weight" in str(error)


def test_a_weight_that_nobody_asked_for(folder: Path) -> None:
    edit_weights(folder, lambda w: w.update({"model.layers.9.bias": torch.zeros(3)}))
    assert "have besides model.layers.9.bias" in str(refused(folder))


def test_a_weight_of_the_wrong_shape(folder: Path) -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    edit_weights(folder, lambda w: w.update({name: torch.zeros(16, 64)}))
    error = refused(folder)
    assert f"{name} has the shape [16, 64]" in str(error)
    assert "[32, 64]" in str(error)


def test_rotary_tables_of_old_versions_are_passed_over(folder: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit_weights(folder, lambda w: w.update({name: torch.zeros(8)}))
    load(str(folder), model_dir=folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [2.0, 2], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0.5, 16.5]},
        {"dtype": "Q9", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": "many", "data_offsets": [0, 16]},
        {"shape": [4]},
        [],
    ],
    ids=str,
)
def test_a_header_that_lies_is_refused(folder: Path, entry: object) -> None:
    text = json.dumps({"lm_head.weight": entry}).encode()
    (folder / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    assert isinstance(refused(folder), CheckpointDamaged)


def test_opening_reads_no_weights(folder: Path) -> None:
    """Headers are enough to know the size of a model far larger than this machine's memory."""
    header = {"w": {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 10**11]}}
    text = json.dumps(header).encode()
    with (folder / WEIGHTS).open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 10**11)
    assert Checkpoint.open(folder, model="huge").size_bytes == 10**11
