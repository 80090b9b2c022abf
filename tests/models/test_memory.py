"""What a model will need, and what there is."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from glm_backend.errors import OutOfMemory
from glm_backend.language_model import LanguageModel
from glm_backend.models.catalog import CATALOG, STARTER
from glm_backend.models.checkpoint import Checkpoint
from glm_backend.models.loader import load
from glm_backend.models.memory import (
    MemoryEstimate,
    available_bytes,
    container_room,
    needed_by_checkpoint,
    needed_by_entry,
)
from glm_backend.models.model import LoadedModel, Quantization

KINDS: tuple[Quantization, ...] = ("none", "int8", "int4")
GB = 10**9


@pytest.mark.parametrize("kind", KINDS)
def test_the_catalogue_knows_what_the_starter_takes(model_dir: Path, kind: Quantization) -> None:
    held = load(STARTER.id, model_dir=model_dir, quantization=kind)
    LanguageModel(held).close()
    assert STARTER.memory_bytes(kind) == pytest.approx(held.memory_bytes, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_headers_and_catalogue_agree(
    starter: LoadedModel, model_dir: Path, kind: Quantization
) -> None:
    checkpoint = Checkpoint.open(model_dir / STARTER.id, model=starter.name)
    by_file = needed_by_checkpoint(checkpoint, kind, bytes_per_value=4, max_context=0)
    by_name = needed_by_entry(STARTER, kind, bytes_per_value=4, max_context=0)
    assert by_file.total == pytest.approx(by_name, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("none", 12, 13.5), ("int8", 6, 8.5), ("int4", 4, 6)]
)
def test_six_billion_parameters_take_what_was_published(
    kind: Quantization, low: float, high: float
) -> None:
    entry = CATALOG["chatglm2-6b"]
    assert low * GB < entry.memory_bytes(kind, bytes_per_value=2) < high * GB


def test_a_shorter_context_needs_less() -> None:
    long, short = (
        needed_by_entry(STARTER, "none", bytes_per_value=4, max_context=limit)
        for limit in (0, 1024)
    )
    assert long - short == 2 * 30 * 3 * 64 * 4 * (8192 - 1024)


def test_every_entry_says_where_it_comes_from() -> None:
    for entry in CATALOG.values():
        assert bool(entry.repo) != bool(entry.package)
        assert entry.licence
        assert set(entry.languages) <= {"en", "zh"}
    assert STARTER.english_first
    assert not CATALOG["chatglm3-6b"].english_first


def test_what_does_not_fit_is_refused_with_the_figures() -> None:
    MemoryEstimate.compare(5 * GB, 6 * GB).require("it")
    MemoryEstimate.compare(None, 0).require("unknown things are tried")
    with pytest.raises(OutOfMemory, match=r"it needs about 7\.0 GB; 6\.0 GB are free"):
        MemoryEstimate.compare(7 * GB, 6 * GB).require("it")


def test_the_machine_has_no_more_than_it_has() -> None:
    assert 0 < available_bytes(torch.device("cpu")) <= psutil.virtual_memory().total


def group(folder: Path, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_a_container_limit_counts(tmp_path: Path) -> None:
    group(tmp_path, V2, str(4 * GB), 3 * GB, f"anon 1\ninactive_file {GB}\n")
    assert container_room(tmp_path) == 2 * GB


def test_a_container_limit_of_the_older_kind_counts(tmp_path: Path) -> None:
    group(tmp_path / "memory", V1, str(4 * GB), GB, f"inactive_file 7\ntotal_inactive_file {GB}\n")
    assert container_room(tmp_path) == 4 * GB


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    assert container_room(tmp_path) is None
    group(tmp_path, V2, "max", GB, "anon 1\n")
    assert container_room(tmp_path) is None
    group(tmp_path / "memory", V1, str(2**63 - 4096), GB, "anon 1\n")
    assert container_room(tmp_path) is None
