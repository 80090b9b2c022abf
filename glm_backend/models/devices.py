"""What a model can run on here."""

from __future__ import annotations


def devices() -> list[str]:
    """The names that a ModelRequest takes on this machine: auto, cpu, and each CUDA device."""
    import torch

    return ["auto", "cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
