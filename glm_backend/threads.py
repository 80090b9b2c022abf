"""Threads and kernels: how many cores there are, and who may compute beside the engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psutil

T = TypeVar("T")

#: What `settle_kernels` sets.
KERNEL_SETTINGS = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "MKL_CBWR")
#: How often a helper of OpenMP looks for work before it sleeps, half a millisecond on the machine
#: where it was measured: longer than the gaps between the operations of a step. GNU's own 300,000
#: hold the core from whoever needs it next, the web server or another library; under 5,000 the
#: helpers of a small model sleep between operations.
_SPINS = 10_000


def cores() -> int:
    """Cores that this process may use; two threads of one core count once."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(usable or 1, psutil.cpu_count(logical=False) or 1))


def settle_kernels() -> None:
    """How many helpers OpenMP has and how they wait, and that MKL adds up in one way.

    Both read it once, when torch is imported. What the operator has set stays. Without the latter
    MKL's products differ in their last bits with the address at which a matrix happens to begin
    (seen on AMD's processors, in torch's attention with two threads), and an answer with the
    company it keeps; see "conditional numerical reproducibility" in oneMKL's developer guide.
    """
    os.environ.setdefault("MKL_CBWR", "AUTO")
    os.environ.setdefault("OMP_NUM_THREADS", str(cores()))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))


@contextmanager
def a_core_left() -> Iterator[None]:
    """Kernels of this thread leave a core to others, such as whoever shows how far the work is.

    Threads of a kernel wait for each other, so one that has lost its core holds all: on two cores,
    beside one busy program, quantising the starter model took 9 s with two threads and 2.1 s with
    one, where an idle machine takes 1.8 and 2.1 s.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, cores() - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def apart(work: Callable[[], T]) -> T:
    """Does `work` in a thread that ends with it; gives what it gives, raises what it raises.

    OpenMP keeps helpers for every thread that ever ran a kernel. Once there are more of them than
    cores it lets all of them sleep between two operations, and the engine, whose operations are
    short, takes twice as long for a token (measured: 11 and 20 ms). So nobody but the engine has a
    lasting thread that computes.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="kernels apart")
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()
    return results.pop()
