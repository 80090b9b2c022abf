"""Kernels are told how to wait and to add before torch is there, and the operator's word stands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from glm_backend.threads import KERNEL_SETTINGS, a_core_left, cores

SHOWN = """
import os, sys
import glm_backend
print("torch" in sys.modules, os.environ["OMP_NUM_THREADS"], os.environ.get("GOMP_SPINCOUNT"),
      os.environ["MKL_CBWR"])
"""


def shown(**environment: str) -> list[str]:
    own = {*KERNEL_SETTINGS, "OMP_WAIT_POLICY"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    run = subprocess.run(
        [sys.executable, "-c", SHOWN],
        env=kept | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.split()


def test_it_is_settled_before_torch_is_imported() -> None:
    imported, threads, spins, adding = shown()
    assert imported == "False"
    assert 1 <= int(threads) <= (os.cpu_count() or 1)
    assert int(spins) > 0
    assert adding == "AUTO"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": "5"}, ["False", "7", "5", "AUTO"]),
        ({"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}, ["False", "7", "None", "AUTO"]),
        (
            {"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": "5", "MKL_CBWR": "AVX2"},
            ["False", "7", "5", "AVX2"],
        ),
    ],
    ids=["both numbers", "the policy", "the sums"],
)
def test_what_the_operator_said_stands(said: dict[str, str], expected: list[str]) -> None:
    assert shown(**said) == expected


def test_a_load_leaves_a_core_and_gives_it_back() -> None:
    before = torch.get_num_threads()
    with a_core_left():
        assert torch.get_num_threads() == max(1, min(before, cores() - 1))
    assert torch.get_num_threads() == before
