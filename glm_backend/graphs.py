"""Graphs of OpenVINO (https://docs.openvino.ai): how they are compiled, where their weights lie."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import tempfile
from typing import Any

import torch
from torch import Tensor

#: Columns over which activations are rounded to 8 bits with one scale. Wider ones are quicker, but
#: beside one that is much larger than the rest more numbers lose digits. By 64 a prompt of 512
#: takes a tenth less time than by 32 beside INT8, a quarter less beside INT4, for 0.07 % of
#: perplexity (the starter model in INT8: 45.04 in float32, 45.16, 45.20; 45.29 by rows).
ACTIVATION_GROUP = 64


def compiled(model: Any, **more: str) -> Any:
    """An openvino.Model ready to make requests. more: options beside the usual.

    Raises ImportError where OpenVINO is not installed.
    """
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # the web server moves among the cores, too
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(ACTIVATION_GROUP),
    }
    return _core().compile_model(model, "CPU", options | more)


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


class Shelf:
    """Weights of graphs in one file without a name.

    OpenVINO lays weights out anew, in memory of its own, when it first computes with them, and does
    not say whether it will look at them again: in memory they would be held twice. Where there is
    no room on the disk they are.
    """

    def __init__(self, size_bytes: int) -> None:
        self._pages: mmap.mmap | None = None
        self._used = 0
        with contextlib.suppress(OSError, AttributeError), tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)  # or a full disk would end the process
            self._pages = mmap.mmap(file.fileno(), size_bytes)

    def put(self, tensor: Tensor) -> Tensor:
        """The same tensor on the shelf; all together are no more than its size."""
        if self._pages is None:
            return tensor
        held = torch.frombuffer(
            self._pages, dtype=tensor.dtype, count=tensor.numel(), offset=self._used
        )
        self._used += tensor.nbytes
        return held.view_as(tensor).copy_(tensor)

    def let_go(self) -> None:
        """Gives the memory back; what is looked at again comes from the file."""
        if self._pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)
