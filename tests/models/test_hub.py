"""Fetching a model, against a server on this machine that speaks the hub's protocol."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from glm_backend.errors import Cancelled, DownloadFailed
from glm_backend.models import hub as hub_module
from glm_backend.models.hub import download
from tests.models.hub_server import Hub

REPO = "team/model"
WEIGHTS = random.Random(0).randbytes(1_000_000)
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "tokenizer.model": b"sp",
    "empty.json": b"",
    "model.safetensors": WEIGHTS,
}
UNWANTED = {
    "modeling_evil.py": b"raise SystemExit",
    "README.md": b"#",
    "pytorch_model.bin": b"the same again",
    "quantization_kernels.so": b"elf",
    "../../escape.json": b"{}",
    "/etc/escape.json": b"{}",
    "..\\escape.json": b"{}",
    "nested/config.json": b"{}",
    ".hidden.json": b"{}",
}


def fetch(hub: Hub, target: Path) -> list[float]:
    """Downloads, and gives the fractions that were told."""
    seen: list[float] = []
    download(
        REPO,
        target,
        model="Model",
        on_progress=lambda _, done: seen.append(done),
        endpoint=hub.endpoint,
    )
    return seen


def failure(hub: Hub, target: Path) -> DownloadFailed:
    with pytest.raises(DownloadFailed) as caught:
        fetch(hub, target)
    assert not target.exists()
    return caught.value


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_PAUSE_S", 0.01)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model"


def test_a_whole_model_arrives_and_nothing_else(target: Path) -> None:
    with Hub(REPO, FILES | UNWANTED, pause_s=0.01) as hub:
        seen = fetch(hub, target)
    assert contents(target) == FILES
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(set(seen)) > 2
    outside = [p.name for p in target.parent.parent.rglob("*escape*")]
    assert outside == []
    assert [p.name for p in target.parent.iterdir() if p.is_dir()] == ["model"]


def test_bin_files_are_taken_where_there_is_nothing_better(target: Path) -> None:
    files = {"config.json": b"{}", "pytorch_model.bin": WEIGHTS, "training_args.bin": b"pickle"}
    with Hub(REPO, files) as hub:
        fetch(hub, target)
    assert sorted(contents(target)) == ["config.json", "pytorch_model.bin"]


def test_what_is_there_is_not_asked_for_again(target: Path) -> None:
    with Hub(REPO, FILES) as hub:
        fetch(hub, target)
        asked = len(hub.requests)
        fetch(hub, target)
        assert len(hub.requests) == asked


def test_a_cut_connection_is_taken_up_where_it_broke(target: Path) -> None:
    with Hub(REPO, FILES, cut_after=320_000) as hub:
        fetch(hub, target)
        first, *later = hub.ranges("model.safetensors")
    assert contents(target) == FILES
    assert first is None
    assert len(later) == 3
    assert all(asked and asked.startswith("bytes=") for asked in later)
    starts = [int(asked[6:-1]) for asked in later if asked]
    assert starts == sorted(starts)
    assert 0 < starts[0] <= 320_000 + 16_384


def test_a_stopped_download_goes_on_where_it_was(target: Path) -> None:
    def stop_half_way(_: str, done: float) -> None:
        if done > 0.3:
            raise Cancelled(what="the test")

    with Hub(REPO, FILES, pause_s=0.05) as hub:
        with pytest.raises(Cancelled):
            download(REPO, target, model="Model", on_progress=stop_half_way, endpoint=hub.endpoint)
        assert not target.exists()
        hub.pause_s = 0
        fetch(hub, target)
        _, asked = hub.ranges("model.safetensors")
    assert contents(target) == FILES
    assert asked is not None
    assert int(asked[6:-1]) > 200_000
    assert len(hub.ranges("config.json")) == 1


def test_stop_does_not_wait_for_a_silent_server(target: Path) -> None:
    def stop_when_silent(_: str, done: float) -> None:
        if done > 0.05:
            raise Cancelled(what="the test")

    with Hub(REPO, FILES, stall_after=100_000) as hub:
        with pytest.raises(Cancelled):
            download(
                REPO, target, model="Model", on_progress=stop_when_silent, endpoint=hub.endpoint
            )
        assert any(t.name == f"download {REPO}" for t in threading.enumerate())  # still listening


def test_a_file_that_changed_meanwhile_is_fetched_anew(target: Path) -> None:
    other = bytes(reversed(WEIGHTS))
    with Hub(REPO, FILES, cut_after=10_000) as hub:
        hub.cut_after = 0
        failure(hub, target)
        hub.cut_after = None
        hub.files = FILES | {"model.safetensors": other}
        fetch(hub, target)
    assert (target / "model.safetensors").read_bytes() == other


def test_a_server_without_ranges_starts_from_zero(target: Path) -> None:
    with Hub(REPO, FILES, cut_after=100_000, knows_ranges=False) as hub:
        cutter = threading.Timer(0.5, lambda: setattr(hub, "cut_after", None))
        cutter.start()
        for _ in range(200):
            try:
                fetch(hub, target)
                break
            except DownloadFailed:
                continue
        cutter.join()
    assert contents(target) == FILES


def test_damaged_bytes_are_thrown_away(target: Path) -> None:
    with Hub(REPO, FILES, corrupt=True) as hub:
        error = failure(hub, target)
        assert "model.safetensors" in str(error)
        hub.corrupt = False
        fetch(hub, target)
    assert (target / "model.safetensors").read_bytes() == WEIGHTS


def test_a_repository_that_is_not_there(target: Path) -> None:
    with Hub("team/other", FILES) as hub:
        error = failure(hub, target)
    assert "there is no repository team/model" in str(error)
    assert error.details["host"] == hub.endpoint.removeprefix("http://")
    assert "HF_TOKEN" in str(error)


def test_a_gated_repository_says_what_to_do(target: Path) -> None:
    with Hub(REPO, FILES, gated=True) as hub:
        error = failure(hub, target)
    assert "gated" in str(error)
    assert "Accept its terms" in str(error)


def test_a_repository_without_models(target: Path) -> None:
    with Hub(REPO, {"README.md": b"#"}) as hub:
        assert "no model files" in str(failure(hub, target))


def test_a_server_in_trouble(target: Path) -> None:
    with Hub(REPO, FILES, status=500) as hub:
        assert "HTTP 500" in str(failure(hub, target))


def test_a_server_that_has_gone(target: Path) -> None:
    with Hub(REPO, FILES) as hub:
        pass
    error = failure(hub, target)
    assert "HF_ENDPOINT" in str(error)


def test_a_connection_that_breaks_again_and_again_ends(target: Path) -> None:
    with Hub(REPO, FILES, cut_after=0) as hub:
        error = failure(hub, target)
    assert "What has arrived is kept" in str(error)


def test_a_disk_that_is_too_small(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = hub_module.shutil.disk_usage("/")
    monkeypatch.setattr(hub_module.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with Hub(REPO, FILES) as hub:
        error = failure(hub, target)
    assert "of disk are free" in str(error)
    assert "GLM_MODEL_DIR" in str(error)


def test_two_at_once_both_end_well(target: Path) -> None:
    with Hub(REPO, FILES, pause_s=0.005) as hub:
        threads = [threading.Thread(target=fetch, args=(hub, target)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(hub.ranges("model.safetensors")) == 1
    assert contents(target) == FILES
