"""Where kernels run, and where they must not."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
