"""A model's weights in few bits, kept: a folder that loads in seconds and needs nothing else.

Tokenizer and configuration come along as they are. The folder is for this program: config.json
says so where other programs look for the form of the weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_backend.errors import FileExists, ModelUnsupported, Phrase
from glm_backend.models import kept_weights
from glm_backend.models.assembly import KEPT_BY_US, Placement, assemble
from glm_backend.models.chatglm import PublishedChatGLM
from glm_backend.models.checkpoint import CONFIG_FILE, INDEX_FILE, Checkpoint, read_json
from glm_backend.models.model import Quantization
from glm_backend.models.new_folder import new_folder
from glm_backend.models.ptuning import prefix_tensors
from glm_backend.models.quantization import (
    Int4Weight,
    Int8Weight,
    QuantizedLinear,
    weight_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

#: Of one file; the library that writes it holds it twice meanwhile.
_SHARD_BYTES = 500 * 10**6
#: What a folder may hold beside weights that is of use without them. Programs are left behind.
_SUFFIXES = {".json", ".model", ".txt", ".jinja", ".md"}
_LICENCES = ("LICENSE", "MODEL_LICENSE", "NOTICE")


def convert(
    checkpoint: Checkpoint,
    folder: Path,
    quantization: Quantization,
    *,
    model: str,
    on_progress: Callable[[str, float], None],
) -> None:
    """Writes the model of `checkpoint` in few bits as the new folder `folder`.

    It appears by one rename, whole. Raises ModelUnsupported for weights that are in few bits
    already, FileExists for a folder that is there, CheckpointDamaged, FolderNotWritten, and what
    `on_progress` raises.
    """
    import torch

    if checkpoint.in_few_bits:
        raise ModelUnsupported(
            model=model,
            reason=Phrase("its weights are in few bits already"),
            remedy=Phrase("Load it as it is, or convert the unquantised version."),
        )
    if folder.exists():
        raise FileExists(file=str(folder))
    placement = Placement(quantization, torch.float32, torch.device("cpu"))
    module = assemble(
        checkpoint, placement, model=model, on_fraction=lambda done: on_progress("quantizing", done)
    )
    with new_folder(folder) as scratch:
        _copy_small_files(checkpoint.folder, scratch)
        (scratch / CONFIG_FILE).write_text(json.dumps(_config(checkpoint), indent=2), "utf-8")
        _write(scratch, module, checkpoint, on_progress)


def _copy_small_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        wanted = file.suffix in _SUFFIXES or file.name in _LICENCES
        if file.is_file() and wanted and not file.name.endswith(".index.json"):
            shutil.copyfile(file, target / file.name)


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json as it was, with a mark; and a family that was told by what is left behind."""
    config = read_json(checkpoint.folder / CONFIG_FILE)
    if isinstance(checkpoint, PublishedChatGLM):
        config["_name_or_path"] = checkpoint.family
    return config | {"quantization_config": {"quant_method": KEPT_BY_US}}


def _write(
    folder: Path,
    module: nn.Module,
    checkpoint: Checkpoint,
    on_progress: Callable[[str, float], None],
) -> None:
    """Files of weights, and the index that names them."""
    from safetensors.torch import save_file

    total = max(1, weight_bytes(module))  # some are written in half of it
    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}

    def finish() -> None:
        name = f"model-{len(set(places.values())) + 1:05}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    done = 0
    for weight in _weights(module, checkpoint):
        on_progress("writing", min(1.0, done / total))
        shard |= {name: tensor.contiguous() for name, tensor in weight.items()}
        done += _size(weight)
        if _size(shard) > _SHARD_BYTES:
            finish()
    finish()
    index = {"metadata": {"total_size": done}, "weight_map": places}
    (folder / INDEX_FILE).write_text(json.dumps(index), "utf-8")
    on_progress("writing", 1.0)


def _weights(module: nn.Module, checkpoint: Checkpoint) -> Iterator[dict[str, Tensor]]:
    """What each weight is stored as: by name, what belongs together at a time."""
    few_bits = {}
    for path, part in module.named_modules():
        if isinstance(part, QuantizedLinear) and isinstance(part.weight, Int8Weight | Int4Weight):
            few_bits[path] = dict(kept_weights.stored(f"{path}.weight", part.weight))
    yield from few_bits.values()
    for name, tensor in module.state_dict().items():
        path, _, leaf = name.rpartition(".")
        if path not in few_bits or leaf == "bias":
            yield {name: _narrow(tensor)}
    prefix = checkpoint.prefix_file if isinstance(checkpoint, PublishedChatGLM) else None
    if prefix is not None:  # trained, among the weights
        yield prefix_tensors(prefix)


def _narrow(tensor: Tensor) -> Tensor:
    """The same numbers in half the bytes, where none of them notices."""
    import torch

    if tensor.dtype is torch.float32:
        for dtype in (torch.float16, torch.bfloat16):
            if torch.equal(narrow := tensor.to(dtype), tensor):
                return narrow
    return tensor


def _size(weight: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in weight.values())
