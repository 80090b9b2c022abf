"""Which of several kernels is the fastest for a matrix of some shape: measured on this machine.

CPUs differ: the same kernel is twice as fast as another on one and slower on the next. A choice is
measured when it is first asked for, and remembered in a file beside the models.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from glm_backend.models.quantization import Kernel, QuantizedWeight

FILE = "kernels.json"
#: Rows that are tried, and what a pass of so many counts: words are made one by one, sometimes for
#: several people at once, and prompts are read in portions.
_WEIGHTS = {1: 1.0, 8: 0.25, 64: 0.03}
#: Bytes of the weights that a trial walks over: more than a core's own cache holds. Some processors
#: have a cache of 32 MB for several cores, from which reading weights twice looks free; 48 MB would
#: tell, but they are taken while a model is loaded, and on an AMD EPYC the choice was the same.
_WALKED_BYTES = 16 * 2**20
#: A trial is over a multiple of so many rows, where there are more: kernels ask for whole tiles.
_WHOLE_ROWS = 64
_ROUNDS = 5
#: Of a tiny matrix, whose speed matters to nobody.
_MOST_COPIES = 50
_CPU = torch.device("cpu")


class KernelChoice:
    """Remembers what was fastest. file: None remembers for this process only."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def remember_in(self, file: Path) -> None:
        """Reads what an earlier process has measured, and adds to it from now on."""
        with self._lock:
            self.file = file
            with contextlib.suppress(OSError, ValueError):  # there is none yet, or it is damaged
                stored = json.loads(file.read_bytes())
                found = stored if isinstance(stored, dict) else {}
                self._known |= {key: str(name) for key, name in found.items()}

    def made(
        self, kinds: Sequence[type[Kernel]], weight: QuantizedWeight, bias: Tensor | None
    ) -> Kernel | None:
        """A kernel of the kind that is fastest for weights of this form and shape; None of none."""
        return self.fastest(kinds, weight)(weight, bias) if kinds else None

    def fastest(
        self, kinds: Sequence[type[Kernel]], weight: QuantizedWeight, lead: float = 1.0
    ) -> type[Kernel]:
        """Which of some kinds is, for weights of this form and shape. One alone is not measured.

        lead: how many times as fast as the first another must be to be taken.
        """
        first, *others = kinds
        if not others:
            return first
        leads = {first: lead} | dict.fromkeys(others, 1.0)
        trials = {
            kind.__name__: functools.partial(_score, kind, weight, share)
            for kind, share in leads.items()
        }
        what = f"{weight.rows}x{weight.columns}" + (f" lead {lead}" if lead != 1 else "")
        quickest = self.quickest(what, trials, _device_of(weight))
        return next(kind for kind in kinds if kind.__name__ == quickest)

    def quickest(
        self,
        what: str,
        trials: Mapping[str, Callable[[], float]],
        device: torch.device = _CPU,
    ) -> str:
        """The name of the trial that gives the fewest seconds, for `what` on this machine."""
        key = f"{_machine(device)}: {'/'.join(sorted(trials))} {what}"
        with self._lock:
            if self._known.get(key) not in trials:
                seconds = {name: trial() for name, trial in trials.items()}
                self._known[key] = min(seconds, key=seconds.__getitem__)
                self._write()
            return self._known[key]

    def _write(self) -> None:
        if self.file is None:
            return
        with contextlib.suppress(OSError):  # measured again next time
            self.file.parent.mkdir(parents=True, exist_ok=True)
            partial = self.file.with_suffix(f".{os.getpid()}.tmp")
            partial.write_text(json.dumps(self._known, indent=1, sort_keys=True))
            partial.replace(self.file)


CHOICE = KernelChoice()


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    return f"{_processor()} x{torch.get_num_threads()}, torch {torch.__version__}"


def _score(kind: type[Kernel], weight: QuantizedWeight, lead: float) -> float:
    """Seconds that a kernel takes, weighted over what it will be asked for, less its lead.

    A part of a large matrix stands for all of it: it is measured while a model is loaded, when
    memory is short.
    """
    columns = weight.columns
    rows = min(weight.rows, max(1, _WALKED_BYTES // columns // _WHOLE_ROWS) * _WHOLE_ROWS)
    copies = min(max(1, _WALKED_BYTES // (rows * columns)), _MOST_COPIES)
    part = weight.part(slice(rows))
    with torch.inference_mode():
        kernels = [kind(part, None) for _ in range(copies)]
        device = _device_of(weight)
        seconds = sum(share * _seconds(kernels, n, device) for n, share in _WEIGHTS.items())
        return seconds / copies / lead


def _device_of(weight: QuantizedWeight) -> torch.device:
    return next(iter(weight.tensors().values())).device


def _seconds(kernels: list[Kernel], rows: int, device: torch.device) -> float:
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    x = torch.randn(rows, kernels[0].in_features, dtype=dtype, device=device)

    def multiply() -> None:
        for kernel in kernels:
            kernel.multiply(x)
        if device.type == "cuda":  # which only takes note of what is to be done
            torch.cuda.synchronize(device)

    return quickest_round(multiply)


def quickest_round(work: Callable[[], None]) -> float:
    """Seconds of the quickest of some rounds: what disturbs a round only makes it longer."""
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


@functools.cache
def _processor() -> str:
    info = Path("/proc/cpuinfo")
    with contextlib.suppress(OSError):
        lines = info.read_text().splitlines()
        wanted = ("vendor_id", "cpu family", "model\t", "stepping")
        found = [line.partition(":")[2].strip() for line in lines if line.startswith(wanted)]
        return " ".join(found[:4])
    return platform.processor() or platform.machine()
