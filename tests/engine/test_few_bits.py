"""The passes of our own kernels: their numbers, in any company, and which models take them."""

from __future__ import annotations

import random
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from glm_backend.engine import native_runner
from glm_backend.engine.batch import Stretch
from glm_backend.engine.kv_cache import Prefix
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.llama_like import turns_of
from glm_backend.engine.local import LocalEngine
from glm_backend.engine.native_runner import NativeRunner
from glm_backend.engine.request import SamplingParams
from glm_backend.engine.runner import runner_for
from glm_backend.models import native_kernels
from glm_backend.models.kernel_choice import KernelChoice
from glm_backend.models.quantization import (
    Int8Weight,
    Kernel,
    QuantizedLinear,
    QuantizedWeight,
    quantized_int4,
    quantized_int8,
)
from glm_backend.models.row_quantization import RowInt4Weight
from glm_backend.native.compiled import is_possible
from tests.engine.test_reading import assert_a_prompt_in_parts_is_the_same
from tests.engine.test_runner import VOCAB, ids_of, prompts_of, small

FAMILIES = ["llama", "qwen2", "mistral", "glm", "glm4"]


def in_few_bits(module: PreTrainedModel, form: Callable[[Tensor], Any]) -> PreTrainedModel:
    for name, part in list(module.named_modules()):
        if type(part) is nn.Linear:
            layer = QuantizedLinear(form(part.weight.detach()), part._parameters["bias"])
            module.set_submodule(name, layer)
    return module


def exact(weight: Tensor) -> Int8Weight:
    return replace(quantized_int8(weight), exact=True)


def dequantised(module: PreTrainedModel) -> PreTrainedModel:
    """With the numbers that its weights stand for."""
    for name, part in list(module.named_modules()):
        if isinstance(part, QuantizedLinear):
            layer = nn.Linear(part.in_features, part.out_features, part.bias is not None)
            assert part.weight is not None
            layer.weight = nn.Parameter(part.weight.dense(slice(None)), requires_grad=False)
            layer.bias = part.bias
            module.set_submodule(name, layer)
    return module


#: Weights of a size at which attention matters.
SIZE: dict[str, object] = {
    "head_dim": 64,
    "num_hidden_layers": 5,
    "initializer_range": 0.2,
    "intermediate_size": 128,
}


def int8(kind: str = "llama", **changes: object) -> PreTrainedModel:
    return in_few_bits(small(kind, **(SIZE | changes)), quantized_int8)


@pytest.fixture(autouse=True)
def _this_processor_runs_them() -> None:
    if not is_possible():
        pytest.skip("there are no kernels for this processor; then nothing uses them")


def opened(module: PreTrainedModel, slots: int = 4, tokens: int = 300) -> NativeRunner:
    runner = NativeRunner(module)
    runner.open(slots, tokens)
    return runner


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_has_the_numbers_that_it_has_layer_by_layer(kind: str) -> None:
    """Both round activations to 8 bits, each in its own way."""
    (ids,) = prompts_of([90], VOCAB)
    lean = LeanRunner(int8(kind))
    chosen = runner_for(int8(kind))
    assert type(chosen) is NativeRunner
    assert chosen.held_bytes > 0
    assert chosen.parts == 5
    plain = small(kind, **SIZE)
    exact = LeanRunner(plain).score(ids)
    off, usual = ((runner.score(ids) - exact).norm() for runner in (chosen, lean))
    assert off < 1.2 * usual
    assert usual < 0.1 * exact.norm()


def test_a_pass_is_the_same_to_the_last_bit_however_prompts_are_cut_and_whoever_is_beside() -> None:
    runner = opened(int8(), slots=6)
    rng = random.Random(3)
    texts = prompts_of([rng.randint(40, 200) for _ in range(5)], VOCAB)
    ends = [rng.randint(1, len(text) - 9) for text in texts]
    expected = {}
    for slot, (text, end) in enumerate(zip(texts, ends, strict=True)):
        expected[slot, end] = runner.forward([Stretch(slot, 0, text[:end])])[0]
        for place in range(end, len(text)):
            single = Stretch(slot, place, text[place : place + 1], answering=True)
            expected[slot, place + 1] = runner.forward([single])[0]
        runner.clear(slot)
    at = [0] * len(texts)
    seen = 0
    while any(place < len(text) for place, text in zip(at, texts, strict=True)):
        batch, wanted = [], []
        for slot in rng.sample(range(5), rng.randint(1, 5)):
            text, start, end = texts[slot], at[slot], ends[slot]
            answering = start >= end
            longest = min(start + rng.choice([1, 1, 2, 3]), len(text))
            at[slot] = longest if answering else min(start + rng.choice([1, 2, 31, 64, 90]), end)
            if at[slot] == start:
                continue
            scored = at[slot] - start if answering else int(at[slot] == end)
            new = text[start : at[slot]]
            batch.append(Stretch(slot, start, new, scored=scored, answering=answering))
            wanted += [expected[slot, at[slot] - n] for n in reversed(range(scored))]
        if batch:
            logits = runner.forward(batch)
            assert all(torch.equal(*both) for both in zip(logits, wanted, strict=True))
            seen += len(wanted)
    assert seen == len(expected)


def test_other_passes_may_come_between_the_parts_of_a_prompt() -> None:
    assert_a_prompt_in_parts_is_the_same(NativeRunner(int8()))


def test_a_slot_goes_on_from_another_and_is_empty_when_it_is_cleared() -> None:
    runner = opened(int8())
    (ids,) = prompts_of([101], VOCAB)
    expected = runner.forward([Stretch(0, 0, ids)])
    runner.copy(0, 3, 77)
    assert torch.equal(runner.forward([Stretch(3, 77, ids[77:])]), expected)
    memory = runner._slots.memory
    assert all(tensor[0].any() for tensor in memory.tensors)
    runner.clear(0)
    assert all(not tensor[0].any() for tensor in memory.tensors)
    assert torch.equal(runner.forward([Stretch(3, 77, ids[77:])]), expected)


@pytest.mark.parametrize("layers", [1, 3, 4])
def test_any_number_of_layers(layers: int) -> None:
    (ids,) = prompts_of([20], VOCAB)
    runner = opened(int8(num_hidden_layers=layers))
    assert runner.parts == layers
    logits = runner.forward([Stretch(0, 0, ids, scored=20)])
    expected = LeanRunner(int8(num_hidden_layers=layers)).score(ids)
    assert (logits - expected).norm() < 0.1 * expected.norm()


def test_a_step_whose_logits_nobody_wants_writes_its_keys_and_values() -> None:
    runner = opened(int8())
    (ids,) = prompts_of([40], VOCAB)
    expected = runner.forward([Stretch(0, 0, ids)])
    assert runner.forward([Stretch(1, 0, ids[:39], scored=0)]).shape == (0, VOCAB)
    assert torch.equal(runner.forward([Stretch(1, 39, ids[39:])]), expected)


def test_scores_touch_no_slot_and_may_be_asked_for_meanwhile() -> None:
    runner = opened(int8())
    (ids,) = prompts_of([120], VOCAB)
    expected = runner.score(ids)
    runner.forward([Stretch(0, 0, ids[:60], scored=0)])
    scores: list[Tensor] = []
    asker = threading.Thread(target=lambda: scores.extend(runner.score(ids) for _ in range(5)))
    asker.start()
    logits = [runner.forward([Stretch(0, 60, ids[60:])]) for _ in range(20)]
    asker.join()
    assert all(torch.equal(each, expected) for each in scores)
    assert len(scores) == 5
    assert all(torch.equal(each, logits[0]) for each in logits)


def test_nan_in_the_weights_ends_its_own_answers_only() -> None:
    params = SamplingParams(temperature=0, max_new_tokens=12)
    good = prompts_of([30, 40], VOCAB)
    alone = answered(int8(), *[(prompt, params) for prompt in good])
    poison = next(n for n in range(VOCAB) if not any(n in ids for ids in (*good, *alone)))
    module = int8()
    module.model.embed_tokens.weight.data[poison] = torch.nan
    asked = [(good[0], params), ([9, poison, 9], params), (good[1], params)]
    assert answered(module, *asked) == [alone[0], [], alone[1]]


def answered(module: PreTrainedModel, *asked: tuple[list[int], SamplingParams]) -> list[list[int]]:
    """What is said together; nothing by one that fails."""
    engine = LocalEngine(
        NativeRunner(module), name="", context_length=200, vocab_size=VOCAB, stop_ids=frozenset()
    )
    said = [ids_of(generation) for generation in [engine.submit(*each) for each in asked]]
    engine.close()
    return said


@pytest.mark.parametrize(
    "module",
    [
        lambda: small("llama", **SIZE),
        lambda: int8(head_dim=16),
        lambda: int8().to(torch.bfloat16),
    ],
    ids=["float32", "small heads", "bfloat16"],
)
def test_what_they_are_not_for_runs_layer_by_layer(module: Callable[[], PreTrainedModel]) -> None:
    assert type(runner_for(module())) is LeanRunner


def test_nor_are_they_for_trained_prefixes() -> None:
    prefix: Prefix = [(torch.zeros(2, 3, 64), torch.zeros(2, 3, 64))] * 5
    assert type(runner_for(int8(), prefix)) is LeanRunner


@pytest.mark.parametrize("form", [quantized_int4, RowInt4Weight.like, exact])
def test_our_own_kernels_are_for_every_form(form: Callable[[Tensor], QuantizedWeight]) -> None:
    module = in_few_bits(small("llama", **SIZE), form)
    (ids,) = prompts_of([90], VOCAB)
    runner = runner_for(module)
    assert type(runner) is NativeRunner
    widened = runner_for(dequantised(in_few_bits(small("llama", **SIZE), form)))
    assert type(widened) is LeanRunner
    expected = widened.score(ids)
    assert (runner.score(ids) - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("form", [quantized_int8, quantized_int4, RowInt4Weight.like])
def test_large_layers_are_measured_and_a_library_that_leads_has_most_of_them(
    form: Callable[[Tensor], QuantizedWeight], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four matrices of eight are two fifths of the weights; with a large one it is most of them."""
    asked: list[tuple[int, int, float]] = []

    class Measured(KernelChoice):
        behind: frozenset[tuple[int, int]] = frozenset()

        def fastest(
            self, kinds: Sequence[type[Kernel]], weight: QuantizedWeight, lead: float = 1.0
        ) -> type[Kernel]:
            asked.append((weight.rows, weight.columns, lead))
            return kinds[1 if (weight.rows, weight.columns) in self.behind else 0]

    def fits(*behind: tuple[int, int]) -> bool:
        measured = Measured()
        measured.behind = frozenset(behind)
        monkeypatch.setattr(native_kernels, "CHOICE", measured)
        module = in_few_bits(small("llama", **sizes), form)
        return NativeRunner.fits(module)

    sizes: dict[str, object] = {"hidden_size": 2048, "num_attention_heads": 4, "head_dim": 64}
    sizes |= {"num_key_value_heads": 2, "intermediate_size": 128, "num_hidden_layers": 1}
    sizes["vocab_size"] = 64
    assert fits((128, 2048))
    if form == RowInt4Weight.like:  # no library has it
        assert not asked
        return
    assert {(128, 2048, 1.25), (64, 2048, 1.25)} <= set(asked)
    assert all(columns == 2048 for _, columns, _ in asked)  # small ones are not
    assert not fits((128, 2048), (256, 2048))


def test_a_width_that_is_no_whole_number_of_groups_runs_layer_by_layer() -> None:
    assert not NativeRunner.fits(int8(intermediate_size=96))


@pytest.mark.parametrize(("slot", "start"), [(0, 192), (4, 0), (-1, 0)])
def test_our_own_kernels_write_nowhere_but_where_there_is_room(slot: int, start: int) -> None:
    runner = opened(int8(), slots=4, tokens=192)
    with pytest.raises(IndexError, match=f"slot {slot}"):
        runner.forward([Stretch(slot, start, [5])])


def test_a_longer_text_scored_meanwhile_does_not_change_what_a_step_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It makes longer tables of rotation; the buffers kept from the last step have the old ones."""
    monkeypatch.setattr(native_runner, "_FIRST_POSITIONS", 32)
    (ids,) = prompts_of([120], VOCAB)
    expected = opened(int8()).score(ids)
    runner = opened(int8())
    for place in range(20):
        logits = runner.forward([Stretch(0, place, [ids[place]], answering=True)])
        assert torch.equal(logits[0], expected[place])
    assert torch.equal(runner.score(ids), expected)
    for place in range(20, 120):
        logits = runner.forward([Stretch(0, place, [ids[place]], answering=True)])
        assert torch.equal(logits[0], expected[place])


def test_a_step_holds_no_room_for_the_vocabulary_of_each_token() -> None:
    buffers = NativeRunner(int8(vocab_size=4096))._program.writer.buffers(10)
    assert sum(buffer.nbytes for buffer in buffers) < 10 * 4 * 1024


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_that_gives_other_numbers_is_not_used(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = int8(kind, initializer_range=0.02)

    def backwards(*arguments: Any) -> Tensor:
        return turns_of(*arguments).conj_physical()

    assert NativeRunner.fits(module)
    monkeypatch.setattr(native_runner, "turns_of", backwards)
    assert not NativeRunner.fits(module)


def test_one_that_is_let_go_is_gone() -> None:
    runner = opened(int8())
    runner.forward([Stretch(0, 0, [5, 6])])
    gone = [weakref.ref(runner), weakref.ref(runner._program)]
    del runner
    assert [reference() for reference in gone] == [None, None]
