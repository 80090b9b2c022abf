"""A model folder on disk, read with suspicion: config.json and the weight files.

Nothing in the folder is ever executed. config.json is parsed and cleaned here before transformers
sees it (CVE-2026-4372: a hostile config runs code even with trust_remote_code=False), and an index
cannot name files elsewhere. Knows nothing of modules or precision.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_backend.errors import CheckpointDamaged, ModelMissing, Phrase
from glm_backend.models import kept_weights, weight_files
from glm_backend.models.weight_files import TensorInfo

if TYPE_CHECKING:
    import torch

    from glm_backend.models.quantization import QuantizedWeight

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"

#: Where weights may be, best first: (index of shards, single file).
_WEIGHTS = (
    (INDEX_FILE, "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
#: Keys that name code, or choose it. Keys that begin with "_" are transformers' own and go too.
_HOSTILE_KEYS = {"auto_map", "attn_implementation", "experts_implementation", "custom_pipelines"}

_LAYER = re.compile(r"\.layers\.(\d+)\.")

OnBytes = Callable[[int], None]
Wanted = Callable[[TensorInfo], bool]


def everything(info: TensorInfo) -> bool:
    """For callers who want all tensors."""
    return True


def layer_number(name: str) -> int | None:
    """The layer that a weight of this name belongs to, None for what is in no layer."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder whose config and weight headers were read and agree with each other.

    family: the architecture and its habits; recognised: how that was told, for people.
    """

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    family: str
    recognised: Phrase

    @classmethod
    def open(cls, folder: Path, *, model: str) -> Checkpoint:
        """Reads config and headers, no weights.

        Raises ModelMissing when there is no such model, CheckpointDamaged naming the file.
        """
        config = read_config(folder, model=model)
        tensors: dict[str, TensorInfo] = {}
        for file in _weight_files(folder, model):
            tensors.update(weight_files.headers(file))
        _check_index(folder, tensors)
        family = config["model_type"]
        why = Phrase("{where} says so", where=CONFIG_FILE)
        return cls(folder, config, kept_weights.joined(tensors), family, why)

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights as stored."""
        return sum(info.size_bytes for info in self.tensors.values())

    @property
    def in_few_bits(self) -> bool:
        """Whether weights are stored as integers with scales."""
        return any(info.quantized for info in self.tensors.values())

    def whole_number(self, key: str) -> int:
        """A number that config.json must hold; raises CheckpointDamaged without it."""
        value = self.config.get(key)
        if type(value) is int and 0 < value < 2**31:
            return value
        reason = Phrase(
            "{key} is {value!r}; it must be a whole number above 0", key=key, value=value
        )
        raise CheckpointDamaged(file=str(self.folder / CONFIG_FILE), reason=reason)

    def stream(
        self, on_bytes: OnBytes, wanted: Wanted = everything
    ) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
        """Every (name, tensor) that is `wanted` once, on the CPU, file by file.

        `on_bytes` is told how many bytes are done and may raise to stop. Weights that were stored
        as integers come whole, with their scales.
        """
        yield from self.stored(on_bytes, wanted)

    def stored(
        self, on_bytes: OnBytes, wanted: Wanted
    ) -> Iterator[tuple[str, torch.Tensor | QuantizedWeight]]:
        """The same under the names that the files have."""
        done = 0
        for file in sorted({info.file for info in self.tensors.values() if wanted(info)}):
            infos = [
                (name, info)
                for name, info in self.tensors.items()
                if info.file == file and wanted(info)
            ]
            plain = weight_files.tensors(file, [pair for pair in infos if not pair[1].parts])
            kept = ((name, kept_weights.read(name, info)) for name, info in infos if info.parts)
            for name, tensor in itertools.chain(plain, kept):
                yield name, tensor
                done += self.tensors[name].size_bytes
                on_bytes(done)


def read_config(folder: Path, *, model: str) -> dict[str, Any]:
    """The folder's config.json, without the keys that could choose code.

    Raises ModelMissing without folder or file, CheckpointDamaged when it is not a JSON object.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        remedy = Phrase(
            "Name a folder that holds config.json and weight files, or pick a listed model."
        )
        raise ModelMissing(model=model, where=str(path), remedy=remedy)
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise CheckpointDamaged(file=str(path), reason=Phrase("it names no model_type"))
    return _cleaned(config)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises CheckpointDamaged when there is none."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = Phrase("it cannot be read as JSON ({error})", error=str(error))
        raise CheckpointDamaged(file=str(path), reason=reason) from error
    if not isinstance(value, dict):
        raise CheckpointDamaged(file=str(path), reason=Phrase("it holds no JSON object"))
    return value


def _cleaned(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _cleaned(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if not key.startswith("_") and key not in _HOSTILE_KEYS
    }


def _weight_files(folder: Path, model: str) -> list[Path]:
    """The files that hold the weights; each exists and lies in `folder`."""
    for index_name, single_name in _WEIGHTS:
        if (index := folder / index_name).is_file():
            return _shards(index)
        if (single := folder / single_name).is_file():
            return [single]
    where = Phrase("{folder} (no weight file)", folder=str(folder))
    remedy = Phrase("Fetch model.safetensors (or pytorch_model.bin) into it.")
    raise ModelMissing(model=model, where=where, remedy=remedy)


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointDamaged(file=str(index), reason=Phrase("it holds no weight_map"))
    for file in weight_map.values():
        if not isinstance(file, str) or file != Path(file).name or file in ("", ".", ".."):
            reason = Phrase("it names {file!r}, which is no file of this folder", file=file)
            raise CheckpointDamaged(file=str(index), reason=reason)
    return weight_map


def _shards(index: Path) -> list[Path]:
    shards = [index.parent / name for name in sorted(set(_weight_map(index).values()))]
    for shard in shards:
        if not shard.is_file():
            reason = Phrase("the file is missing, though {index} names it", index=index.name)
            raise CheckpointDamaged(file=str(shard), reason=reason)
    return shards


def _check_index(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Every tensor that the index promises must be in the shard it promises."""
    for index_name, single_name in _WEIGHTS:
        if (index := folder / index_name).is_file():
            for name, file in _weight_map(index).items():
                if name not in tensors or tensors[name].file.name != file:
                    reason = Phrase(
                        "the tensor {name} is not in it, though {index} says so",
                        name=name,
                        index=index_name,
                    )
                    raise CheckpointDamaged(file=str(folder / file), reason=reason)
            return
        if (folder / single_name).is_file():
            return
