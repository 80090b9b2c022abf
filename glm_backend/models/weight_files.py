"""One file of weights: what is in it, and its tensors one after the other.

.safetensors files are read plainly, without mapping them: a mapping counts as memory of this
process, cannot be larger than the machine, and kills the process when the file is cut meanwhile.
.bin files are pickles and go through torch's weights_only loader (CVE-2025-32434); they are mapped,
because torch would read a whole file of gigabytes to give one tensor of it, or only its shape.
Knows nothing of folders and configs.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_backend.errors import CheckpointDamaged, Phrase

if TYPE_CHECKING:
    import torch

#: The format's own limit (https://github.com/huggingface/safetensors, "Format").
_LONGEST_HEADER = 100_000_000
#: What stands in the place of a file until Git LFS has fetched it.
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
#: Bytes of one value by the format's names.
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1}
_ITEM_BYTES |= {"U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor is and what it looks like.

    kind: the format's name of its type; offset_bytes: from the start of the file (both only in
    .safetensors files). quantized: it stands for integers with scales, and stays as it is.
    parts: the tensors of one weight that `kept_weights` found, by their names.
    """

    file: Path
    shape: tuple[int, ...]
    size_bytes: int
    kind: str = ""
    offset_bytes: int = 0
    quantized: bool = False
    parts: Mapping[str, TensorInfo] = field(default_factory=dict)


def headers(file: Path) -> dict[str, TensorInfo]:
    """Names and shapes in `file`, weights unread; raises CheckpointDamaged naming the file."""
    _refuse_what_was_never_fetched(file)
    if file.suffix == ".safetensors":
        return _safetensors_headers(file)
    return {
        name: TensorInfo(file, tuple(tensor.shape), tensor.nbytes)
        for name, tensor in _unpickled(file).items()
    }


def tensors(file: Path, infos: Iterable[tuple[str, TensorInfo]]) -> Iterator[tuple[str, Any]]:
    """(name, torch.Tensor on the CPU) for each of `infos`, which are those of `file`."""
    if file.suffix == ".safetensors":
        yield from _safetensors(file, infos)
        return
    state = _unpickled(file)
    for name, _ in infos:
        yield name, state.pop(name).clone()  # a pickled tensor may hold on to a larger storage


def _damaged(file: Path, reason: Phrase) -> CheckpointDamaged:
    return CheckpointDamaged(file=str(file), reason=reason)


def _refuse_what_was_never_fetched(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            start = opened.read(len(_LFS_POINTER))
    except OSError as error:
        reason = Phrase("it cannot be read to its end ({error})", error=str(error))
        raise _damaged(file, reason) from error
    if not start:
        raise _damaged(file, Phrase("it is empty"))
    if start == _LFS_POINTER:
        reason = Phrase(
            "it is a pointer of Git LFS, not the file itself, which git lfs pull brings"
        )
        raise _damaged(file, reason)


def _safetensors_headers(file: Path) -> dict[str, TensorInfo]:
    """Layout: 8 bytes length of the header, the header as JSON, the values."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            size_bytes = file.stat().st_size
            if size_bytes < 8 + length or length > _LONGEST_HEADER:
                raise _damaged(file, Phrase("it is cut short, or no safetensors file"))
            header = json.loads(opened.read(length))
        infos = {
            name: _info(file, entry, 8 + length)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = Phrase("its header cannot be read ({error})", error=str(error))
        raise _damaged(file, reason) from error
    end = max((info.offset_bytes + info.size_bytes for info in infos.values()), default=8 + length)
    if end > size_bytes:
        reason = Phrase(
            "it is cut short: {wanted} bytes should be there, {there} are",
            wanted=end,
            there=size_bytes,
        )
        raise _damaged(file, reason)
    return infos


def _info(file: Path, entry: dict[str, Any], start: int) -> TensorInfo:
    """One entry of the header; KeyError, TypeError or CheckpointDamaged where it is none."""
    kind, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    size_bytes = math.prod(shape) * _ITEM_BYTES[kind]
    whole = all(type(number) is int and number >= 0 for number in (*shape, begin))
    if not whole or end - begin != size_bytes:
        reason = Phrase(
            "its header is wrong: a tensor of {size} bytes lies at {begin} to {end}",
            size=size_bytes,
            begin=begin,
            end=end,
        )
        raise _damaged(file, reason)
    return TensorInfo(file, shape, size_bytes, kind, start + begin)


def _safetensors(
    file: Path, infos: Iterable[tuple[str, TensorInfo]]
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    kinds = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
        "U8": torch.uint8, "BOOL": torch.bool,
        "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    }  # fmt: skip
    try:
        with file.open("rb", buffering=0) as opened:
            for name, info in infos:
                content = torch.empty(info.size_bytes, dtype=torch.uint8)
                opened.seek(info.offset_bytes)
                if not _fill(content.numpy().data, opened):
                    raise _damaged(file, Phrase("it was cut short while it was read"))
                yield name, content.view(kinds[info.kind]).view(info.shape)
    except OSError as error:
        reason = Phrase("it cannot be read to its end ({error})", error=str(error))
        raise _damaged(file, reason) from error


def _fill(buffer: memoryview, opened: Any) -> bool:
    """Whether the file had enough bytes; one read of the system brings at most 2 GB."""
    while buffer:
        count = opened.readinto(buffer)
        if not count:
            return False
        buffer = buffer[count:]
    return True


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    """A .bin file as tensors on the CPU; torch refuses classes other than tensors."""
    import torch

    try:
        zipped = zipfile.is_zipfile(file)  # the form before torch 1.6 was not, and cannot be mapped
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=zipped)
    except OSError as error:
        reason = Phrase("it cannot be read to its end ({error})", error=str(error))
        raise _damaged(file, reason) from error
    except Exception as error:  # of any kind; torch's own text tells how to run what is in the file
        reason = Phrase("it cannot be read safely: it is damaged, or holds more than tensors")
        raise _damaged(file, reason) from error
    if not isinstance(state, dict) or not all(torch.is_tensor(t) for t in state.values()):
        raise _damaged(file, Phrase("it holds something other than tensors"))
    return state
