"""The lean pass over two devices, without a GPU.

The second is torch's "meta": its tensors have shapes and types and no numbers, and an operation on
tensors of both devices is an error, as it is on GPUs. What comes back from it is zero.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from glm_backend.engine import lean_decoder, llama_like
from glm_backend.engine.batch import Stretch
from glm_backend.engine.lean_decoder import LeanRunner

FIRST, SECOND = torch.device("cpu"), torch.device("meta")
LAYERS = [FIRST, SECOND, SECOND]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 70,
    "pad_token_id": None,
}


class ZerosComeBack(TorchFunctionMode):
    """Lets tensors be taken from the second device to the first."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensor = args[0] if args else None
        back = func is torch.Tensor.cpu or (func is torch.Tensor.to and FIRST in args[1:])
        if back and isinstance(tensor, torch.Tensor) and tensor.is_meta:
            return torch.zeros(tensor.shape, dtype=tensor.dtype)
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=["llama", "glm"])
def runner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LeanRunner:
    for module in (llama_like, lean_decoder):  # it looks at numbers
        monkeypatch.setattr(module, "unless_ones", lambda weight: weight)
    module: PreTrainedModel
    if request.param == "glm":
        module = GlmForCausalLM(GlmConfig(**SIZES))
    else:
        module = LlamaForCausalLM(LlamaConfig(**SIZES))
    nn.Module.to(module, torch.bfloat16).requires_grad_(False)
    for layer, device in zip(module.model.layers, LAYERS, strict=True):
        nn.Module.to(layer, device)
    return LeanRunner(module)


def test_a_pass_goes_from_device_to_device(runner: LeanRunner) -> None:
    with ZerosComeBack():
        runner.open(4, 100)
        logits = runner.forward([Stretch(0, 0, range(40)), Stretch(1, 0, range(7), scored=0)])
        assert (logits.shape, logits.device) == ((1, 70), FIRST)
        answers = [Stretch(0, 40, [3], answering=True), Stretch(1, 7, [1, 2, 3], 3, True)]
        assert runner.forward(answers).shape == (4, 70)
        assert runner.score(range(5)).shape == (5, 70)
        runner.copy(0, 2, 30)
        runner.clear(0)
    assert [cache.device for cache in runner._cache.fused()] == LAYERS


def test_what_is_not_moved_is_an_error(runner: LeanRunner) -> None:
    runner._devices = [FIRST] * 3
    with ZerosComeBack(), pytest.raises((RuntimeError, NotImplementedError)):
        runner.open(4, 100)
