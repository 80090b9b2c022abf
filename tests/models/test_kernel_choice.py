"""What was measured once is remembered: by the machine, and across processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from glm_backend.models import kernel_choice
from glm_backend.models.kernel_choice import FILE, KernelChoice
from glm_backend.models.quantization import (
    Kernel,
    QuantizedWeight,
    WidenedLinear,
    quantized_int4,
    quantized_int8,
)


class Trials(dict[str, object]):
    """Kernels that take so many seconds; `tried`: those that were measured."""

    def __init__(self, **seconds: float) -> None:
        self.tried: list[str] = []
        super().__init__({name: self._trial(name, s) for name, s in seconds.items()})

    def _trial(self, name: str, seconds: float) -> object:
        def trial() -> float:
            self.tried.append(name)
            return seconds

        return trial


def quickest(choice: KernelChoice, trials: Trials, what: str = "64x64", device: str = "cpu") -> str:
    return choice.quickest(what, trials, torch.device(device))  # type: ignore[arg-type]


def test_it_is_measured_once_for_a_shape(tmp_path: Path) -> None:
    choice, trials = KernelChoice(), Trials(slow=2.0, fast=1.0)
    assert [quickest(choice, trials) for _ in range(3)] == ["fast"] * 3
    assert trials.tried == ["slow", "fast"]
    assert quickest(choice, trials, "64x128") == "fast"
    assert len(trials.tried) == 4


def test_a_later_process_reads_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "models" / FILE
    first, later = KernelChoice(), KernelChoice()
    first.remember_in(file)
    quickest(first, Trials(slow=2.0, fast=1.0))
    later.remember_in(file)
    again = Trials(slow=1.0, fast=2.0)
    assert quickest(later, again) == "fast"
    assert not again.tried
    assert [path.name for path in file.parent.iterdir()] == [FILE]  # nothing half written beside it


@pytest.mark.parametrize("damaged", [b"", b"{", b"[1]", b"null", b'{"a": {"b": 1}}', b"\xff"])
def test_a_damaged_file_is_measured_anew_and_mended(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / FILE
    file.write_bytes(damaged)
    choice = KernelChoice()
    choice.remember_in(file)
    assert quickest(choice, Trials(slow=2.0, fast=1.0)) == "fast"
    assert "fast" in json.loads(file.read_bytes()).values()


def test_a_kernel_that_is_not_there_any_more_is_not_taken(tmp_path: Path) -> None:
    choice = KernelChoice()
    choice.remember_in(tmp_path / FILE)
    quickest(choice, Trials(one=2.0, gone=1.0))
    (key,) = json.loads((tmp_path / FILE).read_bytes())
    (tmp_path / FILE).write_text(json.dumps({key.replace("gone", "other"): "gone"}))
    later = KernelChoice()
    later.remember_in(tmp_path / FILE)
    assert quickest(later, Trials(one=2.0, other=3.0)) == "one"


def test_a_gpu_is_measured_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    choice = KernelChoice()
    choice.remember_in(tmp_path / FILE)
    assert quickest(choice, Trials(one=2.0, two=1.0)) == "two"
    assert quickest(choice, Trials(one=1.0, two=2.0), device="cuda") == "one"
    assert any(key.startswith("a GPU, ") for key in json.loads((tmp_path / FILE).read_bytes()))


def test_a_choice_of_one_or_none_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    choice, weight = KernelChoice(), quantized_int8(torch.randn(8, 32))
    monkeypatch.setattr(choice, "quickest", None)
    assert choice.made([], weight, None) is None
    assert type(choice.made([WidenedLinear], weight, None)) is WidenedLinear


def test_the_quicker_of_two_kernels_is_made() -> None:
    class Idle(Kernel):
        """Does next to nothing."""

        def product(self, x: torch.Tensor) -> torch.Tensor:
            return x.new_zeros(x.shape[0], self.out_features)

    weight = quantized_int8(torch.randn(256, 1024))
    assert type(KernelChoice().made([WidenedLinear, Idle], weight, None)) is Idle


@pytest.mark.parametrize(("lead", "taken"), [(1.0, "Second"), (1.2, "Second"), (1.3, "First")])
def test_the_first_may_be_slower_by_its_lead(
    lead: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class First(WidenedLinear):
        """Takes 1.25 seconds."""

    class Second(WidenedLinear):
        """Takes one."""

    def seconds(kernels: list[Kernel], rows: int, device: torch.device) -> float:
        return 1.25 if type(kernels[0]) is First else 1.0

    monkeypatch.setattr(kernel_choice, "_seconds", seconds)
    weight = quantized_int8(torch.randn(8, 32))
    assert KernelChoice().fastest([First, Second], weight, lead).__name__ == taken


def test_what_is_measured_is_a_whole_number_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's INT4 product takes no other; ChatGLM2's down_proj is 4,096 x 13,696."""
    tried: list[int] = []

    class First(WidenedLinear):
        def __init__(self, weight: QuantizedWeight, bias: torch.Tensor | None) -> None:
            super().__init__(weight, bias)
            tried.append(weight.rows)

    class Second(First): ...

    monkeypatch.setattr(kernel_choice, "_WALKED_BYTES", 4096 * 100)
    monkeypatch.setattr(kernel_choice, "_WEIGHTS", {1: 1.0})
    for rows in (256, 48):
        KernelChoice().fastest([First, Second], quantized_int4(torch.randn(rows, 4096)))
    assert set(tried) == {64, 48}
