"""Steps of answers on a GPU, each form of them captured once and then launched as a whole.

A step is some hundreds of kernels, and launching them from Python takes longer than most of them
run. A CUDA graph launches all at once (Nguyen et al. 2021, "Accelerating PyTorch with CUDA
Graphs"). All that is fixed in one: sizes, and where everything lies. So a form is how many tokens
stand in which slots, and how many rows of these are read; an answer keeps its own for dozens of
steps (`padded` in kv_cache.py).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from glm_backend.engine.batch import Answers, Batch
from glm_backend.engine.recorded_pass import Pass

#: How often a form comes before it is captured, which takes longer than some steps: with guesses
#: in them many a form comes but once.
_OFTEN = 8
#: Forms of which it is known how often they came, the latest.
_MOST_FORMS = 128

#: Tokens of each group, its first slot, slots and rows; rows of the pass, how many are scored, and
#: where the first cache lies.
Form = tuple[tuple[tuple[int, ...], ...], int, int, int]

_cuda: Any = torch.cuda  # of which some have no types
logger = logging.getLogger(__name__)


class Graph(Protocol):
    """Work of a GPU that can be launched again."""

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        """Takes note of what `work` does; its result is in the tensor given, after each replay."""
        ...

    def replay(self) -> None:
        """Does it again, with what the tensors that it reads hold now."""
        ...


class CudaGraph:
    """A graph of CUDA's on one device. pool: memory that graphs which never run together share."""

    def __init__(self, device: torch.device, pool: object) -> None:
        self._device, self._pool = device, pool
        self._graph = _cuda.CUDAGraph()

    def capture(self, work: Callable[[], Tensor]) -> Tensor:
        with _cuda.device(self._device):
            before, stream = _cuda.current_stream(), _cuda.Stream()
            # Threads that load a model or score a text use the GPU meanwhile: theirs is no fault.
            capturing = _cuda.graph(
                self._graph, self._pool, stream, capture_error_mode="thread_local"
            )
            try:
                with capturing:
                    return work()
            finally:
                _cuda.set_stream(before)  # which torch leaves undone where `work` fails

    def replay(self) -> None:
        self._graph.replay()


def cuda_graphs(device: torch.device) -> Callable[[], Graph]:
    """What makes graphs for a device."""
    pool = _cuda.graph_pool_handle()
    return lambda: CudaGraph(device, pool)


class CapturedPass:
    """The graphs of a pass, each made when its form has come often.

    Where one cannot be captured, or gives other numbers than the pass, there are none.
    """

    def __init__(self, new_graph: Callable[[], Graph]) -> None:
        self._new_graph = new_graph
        self._came: OrderedDict[Form, int] = OrderedDict()
        self._captured: dict[Form, _Captured] = {}
        self._possible = True

    def play(
        self, run: Pass, hidden: Tensor, turns: Tensor, scored: Tensor, batch: Batch
    ) -> Tensor | None:
        """What `run` gives for a step without a prompt; None where there is no graph of it.

        It is overwritten by the next call. run: the same at each call, and not kept.
        """
        step = batch.answers() if self._possible else None
        if step is None:
            return None
        form = _form(hidden, scored, step)
        inputs = (hidden, turns, scored, step.rows, step.masks)
        if form in self._captured:
            self._came.move_to_end(form)
            return self._captured[form].play(inputs)
        if self._count(form) == _OFTEN:
            self._capture(form, run, inputs, step)
        return None

    def _count(self, form: Form) -> int:
        self._came[form] = self._came.pop(form, 0) + 1
        if len(self._came) > _MOST_FORMS:
            rarest, _ = self._came.popitem(last=False)
            self._captured.pop(rarest, None)
        return self._came[form]

    def _capture(self, form: Form, run: Pass, inputs: tuple[Tensor, ...], step: Answers) -> None:
        hidden, turns, scored, *_ = inputs
        try:
            captured = _Captured(self._new_graph(), run, inputs, step)
            # With other numbers than it was captured with: what was left out would not change. What
            # this writes into the caches, the step itself writes again.
            other = hidden.flip(-1)
            expected = run(other.clone(), turns, step, scored)
            played = captured.play((other, *inputs[1:]))
            same = torch.allclose(played, expected, rtol=0, atol=0, equal_nan=True)
        except Exception as error:  # if it is not of the graph, the pass itself will say so
            logger.info("this pass cannot be captured: %s", error)
            same = False
        if same:
            self._captured[form] = captured
        else:
            self._possible = False
            self._captured.clear()


class _Captured:
    """One form of a pass: a graph, and the tensors that it reads and writes."""

    def __init__(self, graph: Graph, run: Pass, inputs: tuple[Tensor, ...], step: Answers) -> None:
        self._graph = graph
        self._inputs = tuple(part.clone() for part in inputs)
        hidden, turns, scored, rows, masks = self._inputs
        own = step._replace(rows=rows, masks=masks)
        self._logits = graph.capture(lambda: run(hidden, turns, own, scored))

    def play(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._logits


def _form(hidden: Tensor, scored: Tensor, step: Answers) -> Form:
    groups = tuple(tuple(group) for group in step.groups.tolist())
    return groups, len(hidden), len(scored), step.caches[0].data_ptr()
