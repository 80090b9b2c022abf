"""Weights in few bits as they lie in a folder: several tensors each, named after what they are.

`model.norm.weight` stays what it is; a matrix of 1,536 columns in INT4 is stored as
`model.layers.0.mlp.down_proj.weight.int4.1536.packed`, `….scale` and `….zero`. Whatever a file
says, types and shapes are checked before anything is computed with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from glm_backend.errors import CheckpointDamaged, Phrase
from glm_backend.models import weight_files
from glm_backend.models.weight_files import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

    from glm_backend.models.quantization import Int4Weight, Int8Weight

_PART = re.compile(r"(.+\.weight)\.(int8|int8_exact|int4)\.([1-9]\d{0,6})\.(q|packed|scale|zero)")
_PARTS = {"int8": {"q", "scale"}, "int4": {"packed", "scale", "zero"}}
#: What an uneven weight is called in files.
_UNEVEN = "int8_exact"
_PARTS[_UNEVEN] = _PARTS["int8"]


def stored(name: str, weight: Int8Weight | Int4Weight) -> Iterator[tuple[str, Tensor]]:
    """What is written for the weight `name`: each part by its name."""
    kind = _UNEVEN if getattr(weight, "uneven", False) else weight.kind
    for part, tensor in weight.tensors().items():
        yield f"{name}.{kind}.{weight.columns}.{part}", tensor


def joined(headers: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """What files hold, with the parts of one weight as one; raises CheckpointDamaged."""
    found: dict[str, TensorInfo] = {}
    parts: dict[tuple[str, str, int], dict[str, TensorInfo]] = {}
    for name, info in headers.items():
        if match := _PART.fullmatch(name):
            weight, kind, columns, part = match.groups()
            parts.setdefault((weight, kind, int(columns)), {})[part] = info
        else:
            found[name] = info
    for (name, kind, columns), infos in parts.items():
        first = next(iter(infos.values()))
        whole = infos.keys() == _PARTS[kind] and all(i.file == first.file for i in infos.values())
        if not whole or name in found or not infos["scale"].shape:
            raise _damaged(name, first)
        found[name] = replace(
            first,
            shape=(infos["scale"].shape[0], columns),
            size_bytes=sum(info.size_bytes for info in infos.values()),
            kind=kind,
            quantized=True,
            parts=infos,
        )
    return found


def read(name: str, info: TensorInfo) -> Int8Weight | Int4Weight:
    """The weight that `joined` found; raises CheckpointDamaged where its parts make none."""
    parts = dict(weight_files.tensors(info.file, info.parts.items()))
    rows, columns = info.shape
    weight = _int4(parts, columns) if info.kind == "int4" else _int8(parts, info.kind)
    fits = weight is not None and (weight.rows, weight.columns) == (rows, columns)
    if weight is None or not fits or not _is_finite(parts):
        raise _damaged(name, info)
    return weight


def _int8(parts: Mapping[str, Tensor], kind: str) -> Int8Weight | None:
    import torch

    from glm_backend.models.quantization import Int8Weight

    q, scale = parts["q"], parts["scale"]
    right = q.dtype is torch.int8 and q.dim() == 2 and scale.dtype is torch.float32
    if not right or scale.shape != q.shape[:1]:
        return None
    return Int8Weight(q, scale, uneven=kind == _UNEVEN)


def _int4(parts: Mapping[str, Tensor], columns: int) -> Int4Weight | None:
    import torch

    from glm_backend.models.quantization import LARGE_GROUP, SMALL_GROUP, Int4Weight

    packed, scale, zero = (parts[name] for name in ("packed", "scale", "zero"))
    large = (scale.dtype, zero.dtype) == (torch.float16, torch.uint8)
    small = (scale.dtype, zero.dtype) == (torch.bfloat16, torch.bfloat16)
    if packed.dtype is not torch.uint8 or packed.dim() != 2 or not (large or small):
        return None
    group = LARGE_GROUP if large else SMALL_GROUP
    rows, groups = packed.shape[0], -(-columns // group)
    shapes = [tuple(part.shape) for part in (packed, scale, zero)]
    if shapes != [(rows, groups * group // 2), (rows, groups), (rows, groups)]:
        return None
    return Int4Weight(packed, scale, zero, columns)


def _is_finite(parts: Mapping[str, Tensor]) -> bool:
    return all(bool(t.isfinite().all()) for t in parts.values() if t.is_floating_point())


def _damaged(name: str, info: TensorInfo) -> CheckpointDamaged:
    reason = Phrase("the parts of {name} make no weight in 8 or 4 bits", name=name)
    return CheckpointDamaged(file=str(info.file), reason=reason)
