"""Functions compiled for this processor, and programs of them, run by the threads of OpenMP."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import torch
from llvmlite import ir
from torch import Tensor

from glm_backend.native.code import COUNT, I32, I64, PTR, VOID, Code
from glm_backend.native.processor import features, processor

#: What OpenMP calls in each thread: goes through the operations of a program, and waits behind each
#: for the other threads.
_REGION = "region"
#: What it is given: operations, how many, the step; behind these the counts of what is taken.
_GIVEN = 3
_WORD = ctypes.sizeof(ctypes.c_int64)


@functools.cache
def is_possible() -> bool:
    """Whether this processor has what the kernels need, and the system lets them run."""
    return processor() is not None and _openmp() is not None and _may_run_what_was_written()


@functools.cache
def _openmp() -> Any | None:
    """The OpenMP (GNU's) that torch's kernels run in; None where torch has another."""
    for file in Path(torch.__file__).parent.joinpath("lib").glob("libgomp*.so*"):
        library = ctypes.CDLL(str(file))
        library.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_uint] * 2]
        library.GOMP_parallel.restype = None
        return library
    return None


def _may_run_what_was_written() -> bool:
    """Whether memory may become code; LLVM does not notice, and the process would end.

    Hardened systems forbid it (systemd's MemoryDenyWriteExecute, SELinux' execmem).
    """
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        held = ctypes.c_char.from_buffer(page)
        there = ctypes.c_void_p(ctypes.addressof(held))
        asked = ctypes.CDLL(None).mprotect(there, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC)
        del held
    return bool(asked == 0)


#: No program runs with more threads.
MOST_THREADS = os.cpu_count() or 1

#: Engines whose code may be called at any time.
_kept: list[Any] = []


def compiled(write: Callable[[Any], None], name: str) -> int:
    """The address of the function `name`, which `write` writes into a module of llvmlite's.

    Takes 0.1 to 0.3 s. The code stays for as long as the process lives.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    written = ir.Module(name)
    written.triple = llvm.get_process_triple()
    write(written)
    machine = llvm.Target.from_triple(written.triple).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features(), opt=3, jit=True
    )
    module = llvm.parse_assembly(str(written))
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = False  # loops are written as long as they are wanted
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    _kept.append(engine)
    return int(engine.get_function_address(name))


@functools.cache
def _region() -> int:
    """The address of the function that OpenMP calls in each thread."""
    openmp = _openmp()
    for name in ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"):
        llvm.add_symbol(name, ctypes.cast(getattr(openmp, name), ctypes.c_void_p).value)

    def write(module: Any) -> None:
        code = Code(module, _REGION, [PTR])
        b, (given,) = code.b, code.arguments
        operations, count, step = (
            code.load(t, given, _WORD * i) for i, t in enumerate((PTR, I64, PTR))
        )
        counts = code.at(given, _WORD * _GIVEN)
        thread, threads = (
            b.zext(code.call(name, I32), I64)
            for name in ("omp_get_thread_num", "omp_get_num_threads")
        )
        kind = ir.FunctionType(VOID, [PTR, PTR, PTR, I64, I64])
        with code.loop(I64(0), count) as place:
            operation = code.at(operations, code.product(place, 16))
            called = b.inttoptr(code.load(I64, operation), kind.as_pointer())
            # Two sets of counts in turn: nobody looks at the other one before all are through here.
            taken, next_taken = (
                code.at(counts, code.product(b.srem(turn, I64(2)), threads, COUNT))
                for turn in (place, code.sum(place, 1))
            )
            code.store(I64(0), next_taken, code.product(thread, COUNT))
            b.call(called, [code.load(PTR, operation, 8), step, taken, thread, threads])
            code.call("GOMP_barrier", VOID)
        code.done()

    return compiled(write, _REGION)


class Program:
    """Operations that follow each other, each by all threads; without Python in between.

    operations: the address of each function, and what it is given, see code.Operation. What the
    addresses among it point at, somebody else holds.
    """

    def __init__(self, operations: Sequence[tuple[int, Sequence[int]]]) -> None:
        self._given = [(ctypes.c_int64 * len(given))(*given) for _, given in operations]
        flat = [
            number
            for (function, _), given in zip(operations, self._given, strict=True)
            for number in (function, ctypes.addressof(given))
        ]
        self._operations = (ctypes.c_int64 * len(flat))(*flat)
        self._length = len(operations)

    def run(self, step: Step, first: int = 0, behind: int | None = None) -> None:
        """Some of the operations, or all.

        With as many threads as torch's kernels have now; Python's lock is free meanwhile. May run
        with several steps at once.
        """
        openmp: Any = _openmp()
        begin = ctypes.addressof(self._operations) + first * 2 * _WORD
        count = (self._length if behind is None else behind) - first
        threads = min(torch.get_num_threads(), MOST_THREADS)
        counts = 2 * threads * COUNT // _WORD
        about = (ctypes.c_int64 * (_GIVEN + counts))(begin, count, step.address)
        openmp.GOMP_parallel(_region(), ctypes.addressof(about), threads, 0)


class Step:
    """What a step's operations share: how many rows it has, and its buffers, or numbers.

    buffers: tensors on the CPU, which it holds. Operations know them by their place, from 1.
    """

    def __init__(self, rows: int, buffers: Sequence[Tensor | int]) -> None:
        self._buffers = list(buffers)
        shared = [part if isinstance(part, int) else part.data_ptr() for part in buffers]
        self._shared = (ctypes.c_int64 * (1 + len(shared)))(rows, *shared)
        self.address = ctypes.addressof(self._shared)

    def give(self, place: int, buffer: Tensor) -> None:
        """Another buffer at a place."""
        self._buffers[place - 1] = buffer
        self._shared[place] = buffer.data_ptr()
