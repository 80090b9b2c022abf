"""What a model will need, beside what this machine has, before anything is loaded.

Figures come from the headers of the weight files where they are there, else from the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from glm_backend.errors import OutOfMemory
from glm_backend.models.catalog import BYTES_PER_WEIGHT, CatalogEntry
from glm_backend.models.checkpoint import layer_number
from glm_backend.models.model import Quantization

if TYPE_CHECKING:
    import torch

    from glm_backend.models.checkpoint import Checkpoint
    from glm_backend.models.weight_files import TensorInfo

#: Activations, logits and buffers of the kernels.
_WORKING_BYTES = 200 * 10**6
_CGROUPS = Path("/sys/fs/cgroup")
#: cgroup v1 writes "no limit" as a number near 2**63.
_NO_LIMIT = 2**60


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """needed and available in bytes; `known` is False when nothing is known about the model."""

    needed_bytes: int
    available_bytes: int
    fits: bool
    known: bool

    @classmethod
    def compare(cls, needed_bytes: int | None, available_bytes: int) -> MemoryEstimate:
        """What cannot be known is assumed to fit: loading it will tell."""
        if needed_bytes is None:
            return cls(0, available_bytes, fits=True, known=False)
        return cls(needed_bytes, available_bytes, needed_bytes <= available_bytes, known=True)

    def require(self, what: str) -> None:
        """Raises OutOfMemory naming `what` when it does not fit."""
        if not self.fits:
            raise out_of_memory(what, self)


def out_of_memory(what: str, estimate: MemoryEstimate) -> OutOfMemory:
    """The error with its figures in words."""
    return OutOfMemory(
        what=what,
        needed=_gigabytes(estimate.needed_bytes),
        available=_gigabytes(estimate.available_bytes),
    )


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


def needed_by_entry(
    entry: CatalogEntry, quantization: Quantization, *, bytes_per_value: int, max_context: int
) -> int:
    """Bytes for weights, the KV cache of one full context and working room."""
    context = min(max_context or entry.context_length, entry.context_length)
    weights = entry.memory_bytes(quantization, bytes_per_value=bytes_per_value)
    return weights + entry.kv_values_per_token * context * bytes_per_value + _WORKING_BYTES


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes of a model with one full context. layers: of each layer; rest: of all else."""

    layers: tuple[int, ...]
    rest: int

    @property
    def total(self) -> int:
        return sum(self.layers) + self.rest


def needed_by_checkpoint(
    checkpoint: Checkpoint, quantization: Quantization, *, bytes_per_value: int, max_context: int
) -> Needs:
    """The same, counted from the shapes in the weight files."""
    config = checkpoint.config
    limit = _number(config, "max_position_embeddings") or max_context
    context = min(max_context or limit, limit)
    cache = kv_values_per_token(config) * context * bytes_per_value
    count = _number(config, "num_hidden_layers")
    layers, rest = [cache / count for _ in range(count)], float(_WORKING_BYTES)
    for name, info in checkpoint.tensors.items():
        weights = _weight_bytes(name, info, quantization, bytes_per_value)
        if "embed" in name and "lm_head.weight" not in checkpoint.tensors:
            weights += math.prod(info.shape) * _tied_head_bytes(quantization, bytes_per_value)
        number = layer_number(name)
        if number is None or number >= count:
            rest += weights
        else:
            layers[number] += weights
    return Needs(tuple(map(int, layers)), int(rest))


def _weight_bytes(
    name: str, info: TensorInfo, quantization: Quantization, bytes_per_value: int
) -> float:
    values = math.prod(info.shape)
    if info.quantized:
        return info.size_bytes
    if quantization == "none" or len(info.shape) != 2 or "embed" in name:
        return values * bytes_per_value
    return values * BYTES_PER_WEIGHT["int8" if name.startswith("lm_head") else quantization]


def _tied_head_bytes(quantization: Quantization, bytes_per_value: int) -> float:
    """Bytes a value of a head that is tied to the embedding and held apart from it."""
    if quantization != "none":
        return BYTES_PER_WEIGHT["int8"]
    return 4 if bytes_per_value == 4 else 0  # laid out for the CPU's float32 kernel


def kv_values_per_token(config: Mapping[str, Any]) -> int:
    """Numbers that the keys and values of one token are; 0 where config.json does not say."""
    heads = _number(config, "num_attention_heads") or 1
    head_dim = _number(config, "head_dim") or _number(config, "hidden_size") // heads
    groups = _number(config, "num_key_value_heads") or heads
    return 2 * _number(config, "num_hidden_layers") * groups * head_dim


def _number(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def available_bytes(device: torch.device) -> int:
    """Bytes that can be taken now on `device`, within the container's limit."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    room = container_room()
    free: int = psutil.virtual_memory().available
    return free if room is None else min(free, room)


def container_room(root: Path = _CGROUPS) -> int | None:
    """Bytes left under the control group's limit, None without a limit.

    Reads cgroup v2, then v1. File pages that nobody uses can be given back and do not count.
    """
    for limit_name, usage_name, folder in (
        ("memory.max", "memory.current", root),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", root / "memory"),
    ):
        try:
            limit = int((folder / limit_name).read_text())
            used = int((folder / usage_name).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if limit < _NO_LIMIT:
            idle = int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))
            return max(0, limit - used + idle)
    return None
