"""A recorded pass gives what the pass itself gives, to the last bit, and keeps nothing alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glm_backend.engine.batch import Batch, Stretch
from glm_backend.engine.kv_cache import KVCache
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.recorded_pass import Attention, Recording
from glm_backend.engine.runner import runner_for
from glm_backend.language_model import LanguageModel
from glm_backend.models.int4_kernels import TorchInt4
from glm_backend.models.int8_kernels import FbgemmInt8, OneDnnInt8, TwoPartFbgemm, TwoPartOneDnn
from glm_backend.models.loader import load
from glm_backend.models.model import Quantization
from glm_backend.models.native_kernels import NativeKernel
from glm_backend.models.quantization import Int4Weight, Int8Weight, Kernel
from glm_backend.native.compiled import is_possible
from tests.engine.test_runner import VOCAB, small

#: Slots of a step: alone, side by side, and with gaps, which need several calls of attention. At
#: every third step each has guesses.
STEPS = [[0], [0, 1], [0, 1, 2, 3], [1, 3], [0, 2, 3, 5], [0, 2, 4, 5], [2], [0, 2, 4, 6], [7]]
HEADS, KV_HEADS, DIM = 4, 2, 8


def lengths(slot: int) -> int:
    """Of the prompts: of more than one length class."""
    return 20 + 30 * slot


def logits_of(runner: LeanRunner, *, recorded: bool, vocab: int) -> list[Tensor]:
    assert isinstance(runner._replay, Recording)
    runner._replay._possible = recorded
    rows = [
        runner.forward([Stretch(slot, 0, [5 + slot] * lengths(slot), scored=0)])
        for slot in range(8)
    ]
    known = [lengths(slot) for slot in range(8)]
    for step, slots in enumerate(STEPS * 2):
        ids = [(7 * step + place) % vocab for place in range(1 + 2 * (step % 3 == 0))]
        rows.append(
            runner.forward([Stretch(s, known[s], ids, len(ids), answering=True) for s in slots])
        )
        for slot in slots:
            known[slot] += len(ids)
    return rows


def assert_recorded_is_the_same(runner: LeanRunner, vocab: int) -> None:
    runner.open(8, 400)
    plain = logits_of(runner, recorded=False, vocab=vocab)
    kept = [cache.clone() for cache in runner._cache.fused()]
    for slot in range(8):
        runner.clear(slot)
    played = logits_of(runner, recorded=True, vocab=vocab)
    assert isinstance(runner._replay, Recording)
    assert runner._replay._made is not None
    assert all(torch.equal(*both) for both in zip(played, plain, strict=True))
    assert all(torch.equal(*both) for both in zip(runner._cache.fused(), kept, strict=True))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "glm", "glm4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_family_recorded_is_the_same(kind: str, dtype: torch.dtype) -> None:
    runner = runner_for(small(kind).to(dtype))
    assert isinstance(runner, LeanRunner)
    assert_recorded_is_the_same(runner, VOCAB)


@pytest.mark.starter
@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_the_starter_recorded_is_the_same(
    quantization: Quantization, starter: object, model_dir: Path
) -> None:
    loaded = load("smollm2-135m", quantization=quantization, model_dir=model_dir)
    assert_recorded_is_the_same(LeanRunner(loaded.module), 40_000)


def a_batch(cache: KVCache, slots: list[int]) -> Batch:
    """A step of single tokens in a cache of one layer, each behind five others."""
    for slot in slots:
        prompt = Batch([Stretch(slot, 0, [1] * 5)], cache, torch.device("cpu"))
        prompt.attend_fused(0, torch.ones(5, HEADS + 2 * KV_HEADS, DIM), KV_HEADS, 1.0)
    singles = [Stretch(slot, 5, [1], answering=True) for slot in slots]
    return Batch(singles, cache, torch.device("cpu"))


def int8(kind: type[Kernel]) -> Callable[[], Kernel]:
    q = torch.randint(-127, 128, (64, 96), dtype=torch.int8)
    return lambda: kind(Int8Weight(q, torch.rand(64) + 0.1, exact=True), torch.rand(64))  # type: ignore[arg-type]


def int4(kind: type[Kernel]) -> Callable[[], Kernel]:
    packed, zero = torch.randint(0, 256, (64, 48)), torch.full((64, 3), 7, dtype=torch.uint8)
    weight = Int4Weight(packed.to(torch.uint8), torch.rand(64, 3).half(), zero, 96)
    return lambda: kind(weight, torch.rand(64))  # type: ignore[arg-type]


def played_by(kernel: Kernel, multiply: Callable[[Tensor], Tensor]) -> tuple[bool, bool]:
    """Whether its product is recorded, and whether it is right for every number of rows."""

    def run(hidden: Tensor, turns: Tensor, attention: Attention, scored: Tensor) -> Tensor:
        return multiply(hidden)[scored]

    recording, cache = Recording([kernel.multiply]), KVCache(8, 16)
    right, was_played = True, True
    with torch.inference_mode():
        for slots in ([0, 1], [0], [0, 1, 2, 3, 4], [0]):
            batch = a_batch(cache, slots)
            hidden, turns = torch.randn(len(slots), 96), torch.ones(len(slots), 1, 1)
            logits = recording.play(run, hidden.clone(), turns, batch.scored, batch)
            was_played = was_played and logits is not None
            right = right and (logits is None or torch.equal(logits, kernel.multiply(hidden)))
    return was_played, right


@pytest.mark.parametrize("kind", [FbgemmInt8, TwoPartFbgemm, OneDnnInt8, TwoPartOneDnn])
def test_an_int8_kernel_is_recorded_for_every_number_of_rows(kind: type[Kernel]) -> None:
    kernel = int8(kind)()
    assert played_by(kernel, kernel.multiply) == (True, True)


def test_torchs_int4_kernel_is_recorded_for_every_number_of_rows() -> None:
    kernel = int4(TorchInt4)()
    assert played_by(kernel, kernel.multiply) == (True, True)


def test_a_kernel_outside_of_torch_is_not_recorded() -> None:
    if not is_possible():
        pytest.skip("there are no kernels for this processor")
    kernel = int8(NativeKernel)()
    assert played_by(kernel, kernel.multiply) == (False, True)


def test_what_fails_to_be_recorded_is_computed_as_before() -> None:
    kernel = int8(FbgemmInt8)()

    def foreign(x: Tensor) -> Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("not this one")
        return kernel.multiply(x)

    assert played_by(kernel, foreign) == (False, True)


def test_prompts_are_not_played() -> None:
    cache = KVCache(2, 16)
    assert a_batch(cache, [0, 1]).answers() is not None
    mixed = [Stretch(0, 5, [1], answering=True), Stretch(1, 5, [1])]
    assert Batch(mixed, cache, torch.device("cpu")).answers() is None


@pytest.mark.starter
@pytest.mark.parametrize("quantization", ["none", "int8", "int4"])
def test_a_model_that_is_let_go_is_gone(
    quantization: Quantization, starter: object, model_dir: Path
) -> None:
    """Nothing waits for Python's garbage collection, nor is kept by TorchScript."""
    model = LanguageModel(load("smollm2-135m", quantization=quantization, model_dir=model_dir))
    runner: Any = model._runner
    if isinstance(runner, LeanRunner):
        assert runner._replay._made
        head = getattr(runner._head, "__self__", runner._head)
    else:
        head = runner._program
    gone = [weakref.ref(runner), weakref.ref(head)]
    model.close()
    del model, runner, head
    assert [reference() for reference in gone] == [None, None]
