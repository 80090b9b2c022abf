"""The C library's allocator: told to give large blocks back while a model comes or goes.

glibc learns from blocks that are freed to keep ever larger ones (up to 32 MB), which suits the
steps of a loaded model. While one is loaded, weights are read, converted and laid out anew, and the
kept blocks are holes: a model of 306 MB took 447 MB, and kept 420.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator

# Parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LOADING = {_M_MMAP_THRESHOLD: 2**20, _M_TRIM_THRESHOLD: 2**20}
#: What glibc arrives at by itself after it has freed a block of 32 MB.
_STEPPING = {_M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26}


@contextlib.contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Blocks from 1 MB on are given back to the system the moment they are freed."""
    _set(_LOADING)
    try:
        yield
    finally:
        _set(_STEPPING)


def give_back() -> None:
    """Collects what nobody holds and returns it to the system, not only to the allocator."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        library = ctypes.CDLL(None)
        for parameter, value in values.items():
            library.mallopt(parameter, value)
