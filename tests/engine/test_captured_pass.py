"""A captured pass gives what the pass itself gives, without a GPU.

In the place of CUDA's graphs stand ones for the CPU that are as blind: they note which operations
were done on which tensors, and do those again. What a pass decides in Python, and every number and
tensor that it brings along anew, is fixed in them as it is in CUDA's. What CUDA refuses to capture
(a number looked at, a size that depends on numbers) they refuse.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from glm_backend.engine import captured_pass, lean_decoder
from glm_backend.engine.batch import Batch, Stretch
from glm_backend.engine.captured_pass import CapturedPass, CudaGraph
from glm_backend.engine.kv_cache import KVCache
from glm_backend.engine.lean_decoder import LeanRunner
from glm_backend.engine.local import LocalEngine
from glm_backend.engine.recorded_pass import Attention
from glm_backend.engine.request import SamplingParams, Token
from glm_backend.engine.runner import runner_for
from tests.engine.test_runner import VOCAB, prompts_of, small

#: Slots of a step: alone, side by side, and with gaps, which need several calls of attention.
FORMS = [[0], [0, 1, 2, 3], [0, 2, 3, 5]]
REFUSED = {"aten::item", "aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}


class Noted(TorchDispatchMode):
    """Operations, with the tensors that they were done on and those that came of them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func._schema.name in REFUSED:
            raise RuntimeError(f"{func} waits for the GPU")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class CpuGraph:
    """made: all of them. replays: of this one."""

    made: list[CpuGraph] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.replays = 0
        CpuGraph.made.append(self)

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        with Noted() as noted:
            result = work()
        self._calls = noted.calls
        return result

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, before in self._calls:
            again = func(*args, **kwargs)
            if isinstance(before, Tensor) and again.data_ptr() != before.data_ptr():
                before.copy_(again)  # no view, and not in place: it lies where it lay


@pytest.fixture(autouse=True)
def _none_made() -> None:
    CpuGraph.made.clear()


@pytest.fixture(autouse=True)
def plain_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """(oneDNN's own layout is for CPUs, and called in a way that cannot be noted.)"""
    monkeypatch.setattr(lean_decoder, "packed_kernel_is_exact", lambda: False)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form is captured when it comes a second time."""
    monkeypatch.setattr(captured_pass, "_OFTEN", 2)


def captured(runner: LeanRunner) -> CapturedPass:
    """Has a runner take graphs of the CPU."""
    runner._replay = play = CapturedPass(CpuGraph)
    return play


def lengths(slot: int) -> int:
    """Of the prompts: of more than one length class, some of which end under way."""
    return 20 + 30 * slot


def logits_of(runner: LeanRunner) -> list[Tensor]:
    """Of prompts, of many steps of each form, some with guesses, and of a prompt between them."""
    runner.open(8, 400)
    rows = [
        runner.forward([Stretch(slot, 0, [5 + slot] * lengths(slot), scored=0)])
        for slot in range(6)
    ]
    known = [lengths(slot) for slot in range(6)]
    for step in range(60):
        slots, guesses = FORMS[step // 4 % len(FORMS)], 2 * (step % 4 == 3)
        ids = [(7 * step + place) % VOCAB for place in range(1 + guesses)]
        stretches = [Stretch(s, known[s], ids, len(ids), answering=True) for s in slots]
        rows.append(runner.forward(stretches).clone())  # (as they come from a GPU)
        for slot in slots:
            known[slot] += len(ids)
        if step % 10 == 0:
            rows.append(runner.forward([Stretch(7, 0, range(30), scored=30)]))
    return rows


def lean(kind: str, dtype: torch.dtype = torch.float32) -> LeanRunner:
    runner = runner_for(small(kind).to(dtype))
    assert isinstance(runner, LeanRunner)
    return runner


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "glm", "glm4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_family_captured_is_the_same(kind: str, dtype: torch.dtype) -> None:
    plain_runner, runner = lean(kind, dtype), lean(kind, dtype)
    plain = logits_of(plain_runner)
    play = captured(runner)
    replayed = logits_of(runner)
    assert play._possible
    assert sum(graph.replays for graph in CpuGraph.made) > 20
    assert all(torch.equal(*both) for both in zip(replayed, plain, strict=True))
    caches = zip(runner._cache.fused(), plain_runner._cache.fused(), strict=True)
    assert all(torch.equal(*both) for both in caches)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_are_the_same(temperature: float) -> None:
    """Through the engine, which takes guesses, lets requests come and go, and reuses slots."""

    def answered(runner: LeanRunner) -> list[list[int]]:
        engine = LocalEngine(
            runner,
            name="small",
            context_length=300,
            vocab_size=VOCAB,
            stop_ids=frozenset({1, 2}),
            max_concurrent=3,
        )
        asked = [
            engine.submit(
                prompt, SamplingParams(temperature=temperature, seed=n, max_new_tokens=20 + 9 * n)
            )
            for n, prompt in enumerate(prompts_of([5, 70, 3, 120, 33, 64], VOCAB))
        ]
        found = [[e.token_id for e in g.events() if isinstance(e, Token)] for g in asked]
        engine.close()
        return found

    expected = answered(lean("glm"))
    runner = lean("glm")
    captured(runner)
    assert answered(runner) == expected
    assert sum(graph.replays for graph in CpuGraph.made) > 20


HEADS, KV_HEADS, DIM = 4, 2, 8


def step_in(cache: KVCache, position: int) -> Batch:
    """One token of an answer, in a cache of one layer."""
    alone = [Stretch(0, position, [1], answering=True)]
    return Batch(alone, cache, torch.device("cpu"))


def played(run: Callable[..., Tensor], steps: int) -> tuple[CapturedPass, list[Tensor | None]]:
    """What comes of so many steps of one form."""
    play, cache = CapturedPass(CpuGraph), KVCache(1, 60)
    with torch.inference_mode():
        for position in (0, 1):  # a cache is made by the first pass
            heads = torch.ones(1, HEADS + 2 * KV_HEADS, DIM)
            step_in(cache, position).attend_fused(0, heads, KV_HEADS, 1.0)
        found = []
        for position in range(2, 2 + steps):
            batch = step_in(cache, position)
            hidden = torch.full((1, 8), float(position))
            found.append(play.play(run, hidden, torch.ones(1, 1, 1), batch.scored, batch))
            if found[-1] is not None:
                found[-1] = found[-1].clone()
    return play, found


def test_a_form_is_captured_when_it_has_come_often() -> None:
    def run(hidden: Tensor, turns: Tensor, attention: Attention, scored: Tensor) -> Tensor:
        hidden += 1
        return hidden[scored] * 2

    play, found = played(run, 12)
    often = captured_pass._OFTEN
    assert found[:often] == [None] * often
    for position, logits in enumerate(found[often:], 2 + often):
        assert torch.equal(logits, torch.full((1, 8), 2.0 * (position + 1)))
    (graph,) = CpuGraph.made
    assert graph.replays == 1 + 12 - often
    assert play._possible


def looks_at_a_number(hidden: Tensor, *_: object) -> Tensor:
    return hidden * 2 if float(hidden[0, 0]) > 0 else hidden


def brings_a_number_along() -> Callable[..., Tensor]:
    counted = itertools.count(1)

    def run(hidden: Tensor, *_: object) -> Tensor:
        return hidden * next(counted)

    return run


@pytest.mark.parametrize("run", [looks_at_a_number, brings_a_number_along()])
def test_what_cannot_be_captured_is_computed_as_before(run: Callable[..., Tensor]) -> None:
    play, found = played(run, 12)
    assert found == [None] * 12
    assert len(CpuGraph.made) == 1  # and is not tried again
    assert not play._possible
    assert not play._captured


def test_forms_that_come_no_more_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_pass, "_MOST_FORMS", 2)
    runner = lean("llama")
    play = captured(runner)
    logits_of(runner)
    assert len(play._came) == 2
    assert set(play._captured) <= set(play._came)


def test_a_runner_that_is_let_go_is_gone() -> None:
    runner = lean("llama")
    captured(runner)
    logits_of(runner)
    gone = weakref.ref(runner)
    gc.disable()
    try:
        del runner
        assert gone() is None
    finally:
        gc.enable()


class FakeCuda:
    """What of torch.cuda a graph asks for. stream: the one that work goes to."""

    def __init__(self) -> None:
        self.stream, self.replays = "the engine's", 0

    def CUDAGraph(self) -> FakeCuda:  # noqa: N802
        return self

    def Stream(self) -> str:  # noqa: N802
        return "another"

    def current_stream(self) -> str:
        return self.stream

    def set_stream(self, stream: str) -> None:
        self.stream = stream

    def device(self, device: torch.device) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def graph(self, *args: object, **options: object) -> Iterator[None]:
        given = inspect.signature(torch.cuda.graph.__init__).bind(None, *args, **options).arguments
        assert given["cuda_graph"] is self
        assert given["pool"] == (0, 1)
        assert given["capture_error_mode"] == "thread_local"
        self.stream = given["stream"]
        yield  # what fails within leaves the stream as it is, as torch does
        self.stream = "the engine's"

    def replay(self) -> None:
        self.replays += 1


def test_work_goes_to_the_engines_stream_after_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    monkeypatch.setattr(captured_pass, "_cuda", cuda)
    graph = CudaGraph(torch.device("cuda", 1), (0, 1))
    streams = []

    def work() -> Tensor:
        streams.append(cuda.stream)
        return torch.ones(1)

    def failing() -> Tensor:
        work()
        raise RuntimeError("not this one")

    assert graph.capture(work)
    with pytest.raises(RuntimeError, match="not this one"):
        graph.capture(failing)
    graph.replay()
    assert (streams, cuda.stream) == (["another"] * 2, "the engine's")
    assert cuda.replays == 1
