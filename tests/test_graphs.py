"""Where the weights of graphs lie."""

from __future__ import annotations

import os

import pytest
import torch

from glm_backend.graphs import Shelf


def test_tensors_on_a_shelf_are_the_same_before_and_after_it_is_let_go() -> None:
    tensors = [torch.randint(-127, 128, (n, 33), dtype=torch.int8) for n in (7, 300)]
    shelf = Shelf(sum(tensor.nbytes for tensor in tensors))
    held = [shelf.put(tensor) for tensor in tensors]
    for _ in range(2):
        assert all(torch.equal(*both) for both in zip(held, tensors, strict=True))
        assert not any(a.data_ptr() == b.data_ptr() for a, b in zip(held, tensors, strict=True))
        shelf.let_go()


def test_where_the_disk_has_no_room_they_stay_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    shelf, tensor = Shelf(100), torch.ones(10, 10, dtype=torch.int8)
    assert shelf.put(tensor) is tensor
    shelf.let_go()
