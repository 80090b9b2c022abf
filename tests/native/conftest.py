"""These tests are of kernels that some processors cannot run; nothing uses them there.

A processor that has more than another can work as the other, so each test runs as all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from glm_backend.native import processor as processors
from glm_backend.native.compiled import is_possible
from glm_backend.native.processor import Processor


@pytest.fixture(scope="package", autouse=True, params=list(Processor), ids=lambda kind: kind.value)
def processor(request: pytest.FixtureRequest) -> Iterator[Processor]:
    kind: Processor = request.param
    if not is_possible() or kind not in processors.kinds():
        pytest.skip(f"needs {kind.value}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processors, "kinds", lambda: (kind,))
        _forget_kernels()
        yield kind
    _forget_kernels()


def _forget_kernels() -> None:
    """Those of another kind are not to be called."""
    for name, module in list(sys.modules.items()):
        if name.startswith("glm_backend.native") or name == "glm_backend.models.native_kernels":
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
