"""These tests are of kernels that some processors cannot run; nothing uses them there."""

from __future__ import annotations

import pytest

from glm_backend.native.compiled import is_possible


@pytest.fixture(autouse=True)
def _this_processor_runs_them() -> None:
    if not is_possible():
        pytest.skip("needs AVX-512 with VNNI")
