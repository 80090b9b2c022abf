"""ChatGLM folders that are damaged, hostile or mixed up: refused in words, never executed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from glm_backend.errors import CheckpointDamaged, ModelError, ModelMissing, ModelUnsupported
from glm_backend.models.loader import load
from glm_backend.models.manager import ModelManager, ModelRequest
from glm_backend.models.model import LoadedModel
from tests.models import chatglm_tiny as tiny
from tests.models.chatglm_plain import Weights

BIN = "pytorch_model.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = tiny.config()
    return tiny.save(tmp_path / "model", config, tiny.weights(config))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    config = tiny.config()
    return tiny.save(tmp_path / "shards", config, tiny.weights(config), shards=3)


def edit(folder: Path, change: Callable[[Weights], object]) -> None:
    weights = torch.load(folder / BIN, weights_only=True)
    change(weights)
    torch.save(weights, folder / BIN)


def configure(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in values.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))


def refused(folder: Path, **options: Any) -> str:
    """The message, which must name the folder's file and a remedy."""
    with pytest.raises(ModelError) as caught:
        load(str(folder), model_dir=folder, **options)
    assert isinstance(caught.value, CheckpointDamaged)
    message = str(caught.value)
    assert str(folder) in message
    assert "fetch it again" in message
    return message


def test_nothing_of_a_hostile_folder_runs(folder: Path, tmp_path: Path) -> None:
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name in ("configuration", "modeling", "tokenization", "quantization"):
        (folder / f"{name}_chatglm.py").write_text(trap)
    (folder / "quantization_kernels.so").write_bytes(b"\x7fELF")
    configure(
        folder,
        auto_map={"AutoConfig": "configuration_chatglm.ChatGLMConfig"},
        _attn_implementation_internal="evil/kernels",
        _attn_implementation="evil/kernels",
        attn_implementation="evil/kernels",
        _commit_hash="../../etc",
        tokenizer_file="/etc/passwd",
        pre_seq_len=128,
        no_such_key={"a": [1]},
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}})
    )
    model = load(str(folder), model_dir=tmp_path)
    assert type(model.module).__module__.startswith("transformers.models.glm.")
    assert model.prompt_ids([{"role": "user", "content": "hi"}])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "key",
    [
        "hidden_size",
        "num_layers",
        "padded_vocab_size",
        "seq_length",
        "kv_channels",
        "ffn_hidden_size",
        "num_attention_heads",
        "multi_query_group_num",
    ],
)
@pytest.mark.parametrize("value", [..., "many", -1, 2**40, None, True], ids=str)
def test_a_number_that_is_missing_or_none(folder: Path, key: str, value: object) -> None:
    configure(folder, **{key: value})
    assert key in refused(folder)


@pytest.mark.parametrize("ratio", [0, -4, "8", None, True, [4]], ids=str)
def test_a_rope_ratio_that_is_none(folder: Path, ratio: object) -> None:
    configure(folder, rope_ratio=ratio)
    assert "rope_ratio" in refused(folder)


def test_numbers_that_fit_no_weights(folder: Path) -> None:
    configure(folder, multi_query_group_num=1)
    assert "query_key_value" in refused(folder)
    configure(folder, multi_query_group_num=2, num_layers=3)
    assert "lack model.layers.2." in refused(folder)
    configure(folder, num_layers=1)
    assert "have besides model.layers.1." in refused(folder)


@pytest.mark.parametrize(
    "change",
    [{"rmsnorm": False}, {"multi_query_attention": False}, {"add_bias_linear": True}],
    ids=str,
)
def test_a_variant_that_nobody_published(folder: Path, change: dict[str, object]) -> None:
    configure(folder, **change)
    with pytest.raises(ModelUnsupported, match=next(iter(change))):
        load(str(folder), model_dir=folder)


def test_a_missing_shard_and_a_truncated_one_are_named(shards: Path) -> None:
    second = shards / "pytorch_model-00002-of-00003.bin"
    whole = second.read_bytes()
    second.write_bytes(whole[:-1000])
    assert second.name in refused(shards)
    second.write_bytes(b"")
    assert second.name in refused(shards)
    second.unlink()
    assert second.name in refused(shards)


def test_an_index_that_leaves_a_shard_out(shards: Path) -> None:
    index = shards / "pytorch_model.bin.index.json"
    values = json.loads(index.read_text())
    values["weight_map"] = {
        name: file for name, file in values["weight_map"].items() if "00002" not in file
    }
    index.write_text(json.dumps(values))
    assert "they lack" in refused(shards)


def test_a_weight_of_the_wrong_shape(folder: Path) -> None:
    name = "transformer.encoder.layers.0.self_attention.query_key_value.weight"
    edit(folder, lambda weights: weights.update({name: torch.zeros(100, 64)}))
    assert f"{name} has 100 rows" in refused(folder)
    edit(folder, lambda weights: weights.update({name: torch.zeros(128, 60)}))
    assert "[64, 60]" in refused(folder)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    def spoil(weights: Weights) -> None:
        weights["transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"][3, 5] = value

    edit(folder, spoil)
    message = refused(folder)
    assert BIN in message
    assert "NaN" in message


def test_a_pickle_that_wants_to_run_code(folder: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"transformer.output_layer.weight": Evil()}, folder / BIN)
    assert "safely" in refused(folder)
    (folder / BIN).write_bytes(pickle.dumps(Evil(), protocol=2))
    assert BIN in refused(folder)
    assert not (tmp_path / "ran").exists()


def test_a_bin_file_of_before_2020_still_loads(folder: Path) -> None:
    weights = torch.load(folder / BIN, weights_only=True)
    torch.save(weights, folder / BIN, _use_new_zipfile_serialization=False)
    assert load(str(folder), model_dir=folder).family == "chatglm2"


@pytest.mark.parametrize("family", ["chatglm2", "chatglm3"])
def test_the_tokenizer_of_another_model(tmp_path: Path, family: str) -> None:
    config = tiny.config(_name_or_path=family, padded_vocab_size=tiny.PIECES)  # less than it has
    folder = tiny.save(tmp_path, config, tiny.weights(config))
    assert "tokenizer.model" in refused(folder)
    config["padded_vocab_size"] = tiny.PIECES + 5000  # far more than it has
    tiny.save(tmp_path, config, tiny.weights(config))
    message = refused(folder)
    assert "belongs to another model" in message
    (folder / "tokenizer.model").write_bytes(b"no such thing")
    assert "tokenizer.model" in refused(folder)


# --- published integers


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    config = tiny.config(quantization_bit=4)
    return tiny.save(tmp_path / "int4", config, tiny.quantised(tiny.weights(config), 4))


LINEAR = "transformer.encoder.layers.0.mlp.dense_4h_to_h.weight"


def test_integers_and_config_that_disagree(packed: Path, folder: Path) -> None:
    configure(packed, quantization_bit=0)
    assert "quantization_bit" in refused(packed)
    configure(packed, quantization_bit=5)
    assert "quantization_bit" in refused(packed)
    configure(packed, quantization_bit=8)
    assert "should be" in refused(packed)
    configure(folder, quantization_bit=4)
    assert "no scales" in refused(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.pop(f"{LINEAR}_scale"),
        lambda weights: weights.pop(LINEAR),
        lambda weights: weights.update({f"{LINEAR}_scale": torch.ones(3).half()}),
        lambda weights: weights.update({f"{LINEAR}_scale": torch.full((64,), torch.nan).half()}),
        lambda weights: weights.update({LINEAR: weights[LINEAR].float()}),
    ],
    ids=["no scales", "no integers", "too few scales", "NaN scales", "floats"],
)
def test_integers_without_their_scales(packed: Path, change: Callable[[Weights], object]) -> None:
    edit(packed, change)
    assert BIN in refused(packed)


# --- trained prefixes


def test_a_prefix_of_another_model(folder: Path, tmp_path: Path) -> None:
    name = "transformer.prefix_encoder.embedding.weight"
    for i, content in enumerate(
        ({name: torch.zeros(6, 100)}, {name: torch.full((6, 128), torch.nan)}, {"x": torch.ones(2)})
    ):
        place = tmp_path / str(i)
        place.mkdir()
        torch.save(content, place / BIN)
        with pytest.raises(CheckpointDamaged, match=f"{place}/{BIN}"):
            load(str(folder), model_dir=folder, ptuning=place)
    with pytest.raises(ModelMissing, match="prefix"):
        load(str(folder), model_dir=folder, ptuning=tmp_path / "nowhere")


def test_the_first_generation_takes_no_prefix(tmp_path: Path) -> None:
    config = tiny.first_config()
    folder = tiny.save(tmp_path, config, tiny.first_weights(config), tokenizer=False)
    with pytest.raises(ModelUnsupported, match="without ptuning"):
        load(str(folder), model_dir=folder, ptuning=folder)


# --- and the dashboard goes on


class Held:
    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    def close(self) -> None:
        pass


def test_the_model_before_stays_or_is_reported_as_gone(folder: Path, tmp_path: Path) -> None:
    manager = ModelManager(Held, model_dir=tmp_path)
    manager.load(ModelRequest(str(folder)))
    assert manager.wait(60).state == "ready"
    config = tiny.config()
    weights = tiny.weights(config)
    shape = tiny.save(tmp_path / "shape", config | {"hidden_size": 32}, weights)
    manager.load(ModelRequest(str(shape)))
    status = manager.wait(60)
    assert status.state == "ready"  # found out before the old one was let go
    assert status.model is not None
    assert isinstance(status.error, CheckpointDamaged)
    weights["transformer.output_layer.weight"][0, 0] = torch.nan
    spoiled = tiny.save(tmp_path / "nan", config, weights)
    manager.load(ModelRequest(str(spoiled)))
    status = manager.wait(60)
    assert (status.state, status.model) == ("failed", None)  # found out while reading
    assert "NaN" in str(status.error)
    manager.close()
