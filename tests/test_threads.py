"""OpenMP is told how to wait before torch is there to read it, and the operator's word stands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SHOWN = """
import os, sys
import glm_backend
print("torch" in sys.modules, os.environ["OMP_NUM_THREADS"], os.environ.get("GOMP_SPINCOUNT"))
"""


def shown(**environment: str) -> list[str]:
    own = {"OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    kept = {name: value for name, value in os.environ.items() if name not in own}
    run = subprocess.run(
        [sys.executable, "-c", SHOWN],
        env=kept | environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.split()


def test_it_is_settled_before_torch_is_imported() -> None:
    imported, threads, spins = shown()
    assert imported == "False"
    assert 1 <= int(threads) <= (os.cpu_count() or 1)
    assert int(spins) > 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"OMP_NUM_THREADS": "7", "GOMP_SPINCOUNT": "5"}, ["False", "7", "5"]),
        ({"OMP_NUM_THREADS": "7", "OMP_WAIT_POLICY": "active"}, ["False", "7", "None"]),
    ],
    ids=["both numbers", "the policy"],
)
def test_what_the_operator_said_stands(said: dict[str, str], expected: list[str]) -> None:
    assert shown(**said) == expected
