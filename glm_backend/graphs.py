"""How OpenVINO (https://docs.openvino.ai) compiles graphs for the CPU."""

from __future__ import annotations

import functools
from typing import Any

import torch

#: Columns over which activations are rounded to 8 bits with one scale.
ACTIVATION_GROUP = 32


def compiled(model: Any, **more: str) -> Any:
    """An openvino.Model ready to make requests. more: options beside the usual.

    Raises ImportError where OpenVINO is not installed.
    """
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # the web server moves among the cores, too
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(ACTIVATION_GROUP),
    }
    return _core().compile_model(model, "CPU", options | more)


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()
