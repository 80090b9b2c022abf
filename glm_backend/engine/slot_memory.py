"""Memory of several tensors that have a part for each slot, taken as it is needed.

A slot has room for a whole context. On CPUs its pages cost nothing before they are written and can
be given back, so the room is free; on a GPU it is taken at once, and the caller makes as many slots
as fit.
"""

from __future__ import annotations

import contextlib
import mmap

import torch
from torch import Tensor

_PAGE = mmap.PAGESIZE
#: Linux since 5.14; Python has no name for it yet.
_MADV_POPULATE_WRITE = 23


class SlotMemory:
    """tensors: what was made so far, each [slots, ...], zero where nothing was written."""

    def __init__(self, slots: int) -> None:
        self.tensors: list[Tensor] = []
        self._slots = slots
        self._pages: list[mmap.mmap | None] = []  # of each tensor, where it has its own
        self._ready = [0] * slots  # places of each tensor whose pages are there

    def new(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """One more tensor: [slots, *shape]."""
        shape = (self._slots, *shape)
        pages = None
        if device.type != "cpu" or not hasattr(mmap, "MAP_ANONYMOUS"):
            tensor = torch.zeros(shape, dtype=dtype, device=device)
        else:
            # Pages of our own: zero and free until they are written. Huge ones would cost megabytes
            # a layer for the first word of a conversation.
            size_bytes = torch.Size(shape).numel() * dtype.itemsize
            pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_NOHUGEPAGE"):
                pages.madvise(mmap.MADV_NOHUGEPAGE)
            tensor = torch.frombuffer(pages, dtype=dtype).view(shape)
        self._pages.append(pages)
        self.tensors.append(tensor)
        return tensor

    def make_ready(self, slot: int, places: int) -> None:
        """Has the pages of the first places of a slot ready.

        One by one, as they are first touched, they would take longer than the arithmetic.
        """
        if places <= self._ready[slot]:
            return
        for tensor, pages in zip(self.tensors, self._pages, strict=True):
            if pages is not None:
                _populate(tensor[slot, self._ready[slot] : places], tensor, pages)
        self._ready[slot] = places

    @torch.inference_mode()
    def copy(self, source: int, target: int, places: int) -> None:
        """Gives the slot `target` the first places of `source`."""
        for tensor in self.tensors:
            tensor[target, :places] = tensor[source, :places]

    @torch.inference_mode()
    def clear(self, slot: int) -> None:
        """Makes a slot zero, and gives its memory back where that can be."""
        for tensor, pages in zip(self.tensors, self._pages, strict=True):
            if pages is None:
                tensor[slot].zero_()
            else:
                _give_back(tensor[slot], tensor, pages)
        self._ready[slot] = 0


def _populate(part: Tensor, whole: Tensor, pages: mmap.mmap) -> None:
    start = part.data_ptr() - whole.data_ptr()
    first = start // _PAGE * _PAGE
    with contextlib.suppress(OSError, ValueError):  # an older system: they come as they are touched
        pages.madvise(_MADV_POPULATE_WRITE, first, start + part.nbytes - first)


def _give_back(part: Tensor, whole: Tensor, pages: mmap.mmap) -> None:
    """Zeroes the edges of `part` and returns the whole pages between them, which read as zero."""
    start = part.data_ptr() - whole.data_ptr()
    first, last = -(-start // _PAGE) * _PAGE, (start + part.nbytes) // _PAGE * _PAGE
    if last <= first or not hasattr(mmap, "MADV_DONTNEED"):
        part.zero_()
        return
    flat = part.view(-1).view(torch.uint8)
    flat[: first - start].zero_()
    flat[last - start :].zero_()
    pages.madvise(mmap.MADV_DONTNEED, first, last - first)
