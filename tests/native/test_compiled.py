"""Where kernels run, and where they must not."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from glm_backend.native.code import I64, Operation, number
from glm_backend.native.compiled import Program, Step, compiled

#: Asks the system never to let what was written be run (Linux 6.3), as systemd's
#: MemoryDenyWriteExecute does; 2 where it does not know that.
_HARDENED = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(2)
import torch
from glm_backend.models.quantization import QuantizedLinear, quantized_int8
from glm_backend.native.compiled import is_possible
weight = quantized_int8(torch.randn(64, 2048))
assert not is_possible() and not weight.has_native
assert QuantizedLinear(weight, None).packed()(torch.randn(3, 2048)).isfinite().all()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a wish that only Linux grants")
def test_a_system_that_lets_no_memory_become_code_has_the_other_kernels() -> None:
    asked = [sys.executable, "-c", _HARDENED]
    ended = subprocess.run(asked, check=False, capture_output=True, text=True)
    if ended.returncode == 2:
        pytest.skip("this Linux is older than that")
    assert ended.returncode == 0, ended.stderr


#: Some seconds' worth.
LOOKS = 10**9


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_waiting(module: Any) -> None:
    """Whoever does the first piece waits until all others but one are done, but not for ever.

    Buffer, int64: how often each piece was done, how many were, how often was looked.
    """
    code = Operation(module, "waiting")
    b, done = code.b, code.buffer()
    count = code.at(done, code.product(code.rows, 8))
    with code.helping(code.rows) as piece:
        b.atomic_rmw("add", code.at(done, code.product(piece, 8)), number(1), "monotonic")
        with b.if_then(b.icmp_signed("==", piece, number(0))):
            looked = code.variable(number(0))
            look, behind = (code.function.append_basic_block() for _ in range(2))
            b.branch(look)
            b.position_at_end(look)
            looked.set(code.sum(looked.get(), 1))
            known = code.sum(b.load_atomic(count, "monotonic", 8, typ=I64), 2)
            missing = b.icmp_signed("<", known, code.rows)
            again = b.icmp_signed("<", looked.get(), number(LOOKS))
            b.cbranch(b.and_(missing, again), look, behind)
            b.position_at_end(behind)
            code.store(looked.get(), count, 8)
        b.atomic_rmw("add", count, number(1), "monotonic")
    code.done()


@functools.cache
def waiting() -> Program:
    """Three times the same: counts of pieces begin anew each time."""
    return Program([(compiled(write_waiting, "waiting"), (place,)) for place in (1, 2, 3)])


@pytest.mark.parametrize("pieces", [1, 2, 3, 40])
@pytest.mark.usefixtures("two_threads")
def test_a_thread_that_is_done_takes_what_another_has_left(pieces: int) -> None:
    told = [torch.zeros(pieces + 2, dtype=torch.long) for _ in range(3)]
    waiting().run(Step(pieces, told))
    for each in told:
        *times, count, looked = each.tolist()
        assert times == [1] * pieces
        assert count == pieces
        assert looked < LOOKS


@pytest.mark.usefixtures("two_threads")
def test_programs_that_run_at_once_keep_to_their_own_pieces() -> None:
    def run(_: int) -> list[int]:
        told = [torch.zeros(42, dtype=torch.long) for _ in range(3)]
        torch.set_num_threads(2)
        waiting().run(Step(40, told))
        return [int(each[:40].max()) for each in told]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(run, range(40))) == [[1, 1, 1]] * 40
