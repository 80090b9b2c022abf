"""A whole pass of a small model, as every kind of processor: its numbers, alone and in company."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from glm_backend.engine.batch import Stretch
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.native_runner import NativeRunner
from glm_backend.models.quantization import quantized_int4, quantized_int8
from glm_backend.models.row_quantization import RowInt4Weight
from glm_backend.native.processor import Processor
from tests.engine.test_few_bits import SIZE, dequantised, in_few_bits
from tests.engine.test_runner import VOCAB, prompts_of, small

FORMS = [quantized_int8, quantized_int4, RowInt4Weight.like]


@pytest.mark.parametrize("form", FORMS, ids=["int8", "int4", "published int4"])
def test_a_pass_is_right_and_the_same_in_company(
    form: Callable[[Tensor], Any], processor: Processor
) -> None:
    module = in_few_bits(small("llama", **SIZE), form)
    assert NativeRunner.fits(module)
    runner = NativeRunner(module)
    assert runner.kernels == {processor.value}
    runner.open(3, 200)
    ids, others = prompts_of([90, 60], VOCAB)
    expected = LeanRunner(dequantised(in_few_bits(small("llama", **SIZE), form))).score(ids)
    alone = runner.forward([Stretch(0, 0, ids, scored=len(ids))])
    assert (alone - expected).norm() < 0.1 * expected.norm()
    runner.forward([Stretch(1, 0, ids[:40], scored=0), Stretch(2, 0, others[:50], scored=0)])
    rest = [Stretch(2, 50, others[50:]), Stretch(1, 40, ids[40:], scored=50)]
    assert torch.equal(runner.forward(rest)[1:], alone[40:])
