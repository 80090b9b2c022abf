"""One model at a time for everybody: states, swaps, memory, and what goes wrong."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from glm_backend.errors import (
    Cancelled,
    CheckpointDamaged,
    InternalError,
    ModelLoading,
    ModelMissing,
    ModelNotReady,
    ModelUnsupported,
    OutOfMemory,
)
from glm_backend.models.manager import ModelManager, ModelRequest, ModelStatus
from glm_backend.models.model import LoadedModel
from tests.models import chatglm_tiny, tiny

LONG_S = 120


class Held:
    """A runtime that holds its model until it is closed."""

    opened: int = 0

    def __init__(self, model: LoadedModel) -> None:
        self.model: LoadedModel | None = model
        self.closed = False

    def close(self) -> None:
        self.model, self.closed = None, True


class Gate:
    """Opens runtimes; holds each opening until it is let through."""

    def __init__(self) -> None:
        self.reached, self.let_through = threading.Event(), threading.Event()
        self.let_through.set()
        self.opened: list[str] = []

    def __call__(self, model: LoadedModel) -> Held:
        self.reached.set()
        assert self.let_through.wait(LONG_S)
        self.opened.append(model.id)
        return Held(model)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def manager(gate: Gate, tmp_path: Path) -> Iterator[ModelManager[Held]]:
    manager = ModelManager(gate, model_dir=tmp_path / "models")
    yield manager
    gate.let_through.set()
    manager.close()


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("a")
    tiny.make(folder)
    return str(folder)


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("b")
    tiny.make(folder, tiny.llama(num_hidden_layers=3), seed=1)
    return str(folder)


def loaded(manager: ModelManager[Held], source: str) -> ModelStatus:
    manager.load(ModelRequest(source))
    status = manager.wait(LONG_S)
    assert status.state == "ready", status
    return status


def broken(folder: Path) -> str:
    """A model folder whose weight file is cut short."""
    tiny.make(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    return str(folder)


def unreadable(folder: Path) -> str:
    """A folder of a kind that is no chat model."""
    tiny.make(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    return str(folder)


def enormous(folder: Path) -> str:
    """A model folder of 4 TB, all of it a hole."""
    tiny.make(folder)
    shape = [10**6, 10**6]
    header = {"lm_head.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 4 * 10**12)
    return str(folder)


def test_it_begins_empty(manager: ModelManager[Held]) -> None:
    assert manager.status() == ModelStatus()
    with pytest.raises(ModelNotReady):
        manager.current()
    manager.unload()
    manager.cancel()
    assert manager.wait(0).state == "empty"


def test_states_and_stages_come_in_order(
    manager: ModelManager[Held], a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ModelStatus] = []
    show = manager._show

    def watched(**changes: object) -> None:
        show(**changes)
        seen.append(manager._status)

    monkeypatch.setattr(manager, "_show", watched)
    status = loaded(manager, a)
    assert [s.version for s in seen] == list(range(1, len(seen) + 1))
    order = list(dict.fromkeys((s.state, s.stage) for s in seen))
    want = [("loading", ""), ("loading", "reading"), ("loading", "starting"), ("ready", "")]
    assert order == want
    assert status.model is not None
    assert (status.model.id, status.model.family, status.model.dtype) == (a, "llama", "float32")
    assert (status.model.device, status.model.context_length) == ("cpu", 256)
    held = manager.current().model
    assert held is not None
    assert status.model.memory_bytes == held.memory_bytes


def test_quantising_shows_as_a_stage_of_its_own(manager: ModelManager[Held], a: str) -> None:
    manager.load(ModelRequest(a, quantization="int8"))
    status = manager.wait(LONG_S)
    assert status.model is not None
    assert status.model.quantization == "int8"


def test_many_who_ask_at_once_share_one_load(
    manager: ModelManager[Held], gate: Gate, a: str
) -> None:
    askers = [
        threading.Thread(target=manager.load, args=(ModelRequest(a),), daemon=True)
        for _ in range(30)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert manager.wait(LONG_S).state == "ready"
    loaded(manager, a)
    assert gate.opened == [a]


def test_the_later_of_two_requests_wins(
    manager: ModelManager[Held], gate: Gate, a: str, b: str
) -> None:
    gate.let_through.clear()
    manager.load(ModelRequest(a))
    assert gate.reached.wait(LONG_S)
    manager.load(ModelRequest(b))
    gate.let_through.set()
    status = manager.wait(LONG_S)
    assert (status.state, status.error) == ("ready", None)
    assert status.model is not None
    assert status.model.id == b
    held = manager.current().model
    assert held is not None
    assert held.id == b


def test_a_swap_closes_the_old_model_and_lets_all_of_it_go(
    manager: ModelManager[Held], a: str, b: str
) -> None:
    loaded(manager, a)
    old = manager.current()
    assert old.model is not None
    weights = weakref.ref(old.model.module)
    loaded(manager, b)
    assert old.closed
    gc.collect()
    assert weights() is None
    assert manager.current() is not old


def test_the_old_model_answers_until_the_new_one_is_known_to_be_good(
    manager: ModelManager[Held], a: str, tmp_path: Path
) -> None:
    loaded(manager, a)
    old = manager.current()
    for source, error in (
        (str(tmp_path / "nothing"), ModelMissing),
        (broken(tmp_path / "broken"), CheckpointDamaged),
        (enormous(tmp_path / "enormous"), OutOfMemory),
        (unreadable(tmp_path / "unreadable"), ModelUnsupported),
    ):
        manager.load(ModelRequest(source))
        status = manager.wait(LONG_S)
        assert isinstance(status.error, error)
        assert status.state == "ready"
        assert status.request == ModelRequest(a)
        assert manager.current() is old
        assert not old.closed


def test_why_a_swap_failed_can_be_forgotten_and_why_nothing_answers_cannot(
    manager: ModelManager[Held], a: str, tmp_path: Path
) -> None:
    missing = ModelRequest(str(tmp_path / "nothing"))
    manager.load(missing)
    manager.wait(LONG_S)
    manager.forget_error()
    assert isinstance(manager.status().error, ModelMissing)
    before = loaded(manager, a)
    manager.load(missing)
    manager.wait(LONG_S)
    manager.forget_error()
    assert replace(manager.status(), version=before.version, fraction=1.0) == before


def test_a_first_load_that_fails_says_why(manager: ModelManager[Held], tmp_path: Path) -> None:
    manager.load(ModelRequest(broken(tmp_path / "broken")))
    status = manager.wait(LONG_S)
    assert status.state == "failed"
    assert "model.safetensors" in str(status.error)
    assert "fetch it again" in str(status.error)
    with pytest.raises(ModelNotReady, match="No model is loaded"):
        manager.current()


def test_running_out_of_memory_leaves_the_dashboard_alive(
    manager: ModelManager[Held], gate: Gate, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(manager, a)

    def hungry(model: LoadedModel) -> Held:
        torch.empty(2**50)
        raise AssertionError

    monkeypatch.setattr(manager, "_open_runtime", hungry)
    manager.load(ModelRequest(b))
    status = manager.wait(LONG_S)
    assert isinstance(status.error, OutOfMemory)
    assert (status.state, status.model) == ("failed", None)
    with pytest.raises(ModelNotReady):
        manager.current()
    monkeypatch.setattr(manager, "_open_runtime", gate)
    loaded(manager, a)


def test_a_fault_of_the_program_is_reported_and_holds_no_weights(
    manager: ModelManager[Held], a: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[weakref.ref[torch.nn.Module]] = []

    def faulty(model: LoadedModel) -> Held:
        weights.append(weakref.ref(model.module))
        raise KeyError("oops")

    monkeypatch.setattr(manager, "_open_runtime", faulty)
    manager.load(ModelRequest(a))
    status = manager.wait(LONG_S)
    assert isinstance(status.error, InternalError)
    assert "oops" in str(status.error)
    manager.unload()  # waits for the loader thread
    gc.collect()
    assert weights[0]() is None


def test_cancelling_a_first_load_leaves_nothing(
    manager: ModelManager[Held], gate: Gate, a: str
) -> None:
    gate.let_through.clear()
    manager.load(ModelRequest(a))
    assert gate.reached.wait(LONG_S)
    manager.cancel()
    gate.let_through.set()
    status = manager.wait(LONG_S)
    assert (status.state, status.model) == ("empty", None)
    assert isinstance(status.error, Cancelled)
    loaded(manager, a)


def test_unloading_while_loading_ends_empty(
    manager: ModelManager[Held], gate: Gate, a: str
) -> None:
    gate.let_through.clear()
    manager.load(ModelRequest(a))
    assert gate.reached.wait(LONG_S)
    with pytest.raises(ModelLoading):
        manager.current()
    unloading = threading.Thread(target=manager.unload)
    unloading.start()
    gate.let_through.set()
    unloading.join()
    assert manager.status().state == "empty"
    with pytest.raises(ModelNotReady):
        manager.current()


def test_what_is_asked_for_while_a_model_goes_is_on_its_way(
    manager: ModelManager[Held], gate: Gate, a: str, b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded(manager, a)
    going, go_on = threading.Event(), threading.Event()

    def close() -> None:
        going.set()
        assert go_on.wait(LONG_S)

    monkeypatch.setattr(manager.current(), "close", close)
    unloading = threading.Thread(target=manager.unload)
    unloading.start()
    assert going.wait(LONG_S)
    gate.let_through.clear()
    manager.load(ModelRequest(b))
    go_on.set()
    unloading.join()
    assert manager.status().state == "loading"
    gate.let_through.set()
    status = manager.wait(LONG_S)
    assert (status.state, status.model and status.model.id) == ("ready", b)


def test_what_is_asked_for_behind_an_unload_that_waits_its_turn_is_loaded(
    manager: ModelManager[Held], gate: Gate, a: str, b: str
) -> None:
    gate.let_through.clear()
    manager.load(ModelRequest(a))
    assert gate.reached.wait(LONG_S)
    job = manager._job
    unloading = threading.Thread(target=manager.unload)
    unloading.start()
    assert job is not None
    assert job.cancelled.wait(LONG_S)
    manager.load(ModelRequest(b))
    gate.let_through.set()
    unloading.join()
    status = manager.wait(LONG_S)
    assert (status.state, status.model and status.model.id) == ("ready", b)
    assert not manager.current().closed


def test_unload_lets_everything_go(manager: ModelManager[Held], a: str) -> None:
    loaded(manager, a)
    old = manager.current()
    assert old.model is not None
    weights = weakref.ref(old.model.module)
    manager.unload()
    assert old.closed
    gc.collect()
    assert weights() is None
    assert manager.status().model is None


def test_the_estimate_counts_what_the_present_model_gives_back(
    manager: ModelManager[Held], a: str, model_dir: Path, starter: LoadedModel
) -> None:
    """(With the fixtures' copy loaded, the folder is there to be measured.)"""
    source = str(model_dir / "smollm2-135m")
    before = manager.estimate(ModelRequest(source))
    assert before.known
    assert before.fits
    assert before.needed_bytes > starter.memory_bytes
    quantised = manager.estimate(ModelRequest(source, quantization="int4"))
    assert quantised.needed_bytes < before.needed_bytes
    assert manager.estimate(ModelRequest("chatglm3-6b", max_context=1024)).needed_bytes > 20 * 10**9
    loaded(manager, a)
    model = manager.status().model
    assert model is not None
    assert manager._given_back("cpu") == model.memory_bytes
    assert manager._given_back("cuda") == 0


def test_a_published_chatglm_is_estimated_with_its_integers_and_its_conversations(
    manager: ModelManager[Held], tmp_path: Path
) -> None:
    config = chatglm_tiny.config()
    weights = chatglm_tiny.weights(config)
    full = chatglm_tiny.save(tmp_path / "full", config, weights)
    integers = chatglm_tiny.quantised(weights, 4)
    int4 = chatglm_tiny.save(tmp_path / "int4", config | {"quantization_bit": 4}, integers)
    needed = [
        [manager.estimate(ModelRequest(str(folder), max_context=n)).needed_bytes for n in (1, 101)]
        for folder in (full, int4)
    ]
    a_token = 2 * config["num_layers"] * config["multi_query_group_num"] * config["kv_channels"] * 4
    assert [more - less for less, more in needed] == [100 * a_token] * 2
    linear = sum(w.numel() for n, w in weights.items() if ".layers." in n and w.dim() == 2)
    scales = sum(2 * len(w) for n, w in weights.items() if ".layers." in n and w.dim() == 2)
    assert needed[0][0] - needed[1][0] == linear * 4 - linear // 2 - scales


def test_an_estimate_of_nothing_says_so(manager: ModelManager[Held], tmp_path: Path) -> None:
    estimate = manager.estimate(ModelRequest(str(tmp_path / "nothing")))
    assert not estimate.known


SWAPS = """
    import gc, sys
    from pathlib import Path
    import psutil, torch
    from glm_backend.models.manager import ModelManager, ModelRequest

    torch.set_num_threads(2)

    class Held:
        def __init__(self, model):
            self.model = model
        def close(self):
            self.model = None

    def rss():
        return psutil.Process().memory_info().rss / 1e6

    manager = ModelManager(Held, model_dir=Path(sys.argv[1]))
    def use(source, quantization):
        manager.load(ModelRequest(source, quantization=quantization))
        status = manager.wait(300)
        assert status.state == "ready", status.error
        with torch.inference_mode():
            manager.current().model.module(torch.arange(1, 50)[None])

    use(sys.argv[2], "none"); manager.unload()  # imports and one-time buffers
    empty, peaks = rss(), []
    for _ in range(2):
        use(sys.argv[2], "none")
        for quantization in ("none", "int8"):
            use("smollm2-135m", quantization)
            peaks.append(rss() - empty)
    manager.unload()
    print(max(peaks), rss() - empty)
"""


def test_swapping_again_and_again_gives_the_memory_back(model_dir: Path, a: str) -> None:
    """In a process of its own: 0.54 GB come and go, and next to nothing stays."""
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SWAPS), str(model_dir), a],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    most, left = (float(word) for word in run.stdout.split())
    assert 500 < most < 900  # megabytes: the model was really there, and never twice
    assert left < 100
