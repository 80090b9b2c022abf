"""A pass that is recorded once and then played without Python between its operations.

Of a small model's token, calling the hundreds of operations takes as long as their arithmetic, and
each of them asks for Python's lock again, which pages and the web server want, too. TorchScript
plays a recording without either. It is made for steps without a prompt, which nearly all are;
sizes are no part of it, so it serves every number of answers and guesses, and every length.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from glm_backend.engine.batch import Answers, Batch

_jit: Any = torch.jit  # which has no types; that torch will lose it one day: it is pinned
logger = logging.getLogger(__name__)


class Attention(Protocol):
    """What a pass asks of the step: attention of one layer."""

    def attend_fused(self, layer: int, heads: Tensor, kv_heads: int, scale: float) -> Tensor:
        """heads: queries, keys, values, [tokens, heads, dim] -> [tokens, query heads, dim]"""
        ...


#: hidden [rows, hidden size], turns, the step's attention, scored -> logits [scored, vocab].
Pass = Callable[[Tensor, Tensor, Attention, Tensor], Tensor]


class Recording:
    """The recording of a pass, made when a step first needs it.

    weights: whatever the pass reads: tensors, and kernels or their methods. Where one of them
    cannot be recorded, or gives other numbers then, there is no recording.
    """

    def __init__(self, weights: Sequence[object]) -> None:
        self._weights = weights
        self._made: Any | None = None
        self._possible = True

    def play(
        self, run: Pass, hidden: Tensor, turns: Tensor, scored: Tensor, batch: Batch
    ) -> Tensor | None:
        """What `run` gives for a step without a prompt; None where there is no recording of it.

        run: the same at each call, and not kept, as it keeps the weights.
        """
        step = batch.answers() if self._possible and hidden.device.type == "cpu" else None
        if step is None:
            return None
        others = (turns, scored, *step)
        if self._made is None:
            self._made = _recorded(run, self._weights, hidden, others)
        if self._made is None:
            self._possible = False
            return None
        return _play(self._made, hidden, others)


def _play(recording: Any, hidden: Tensor, others: Sequence[object]) -> Tensor:
    with _jit.optimized_execution(False):  # as it was recorded, to the last bit
        logits: Tensor = recording(hidden, *others)
    return logits


def _recorded(
    run: Pass, weights: Sequence[object], hidden: Tensor, others: Sequence[object]
) -> Any | None:
    recorder = _Recorder(run, weights)
    try:
        with warnings.catch_warnings():  # of branches and sizes that are meant to be fixed
            warnings.simplefilter("ignore")
            recording = _jit.trace(recorder, (hidden.clone(), *others), check_trace=False)
        _lighten(recording.graph)
        # A kernel outside of torch would leave in the recording what it gave then. What this writes
        # into the caches, the step itself writes again.
        other = hidden.flip(-1)
        same = torch.equal(_play(recording, other.clone(), others), recorder(other, *others))
    except Exception as error:  # if it is not of the recording, the pass itself will say so
        logger.info("this pass cannot be recorded: %s", error)
        return None
    finally:
        del recorder._run  # or it would be kept as long as the recording
    return recording if same else None


def _lighten(graph: Any) -> None:
    """Lets go of the text of Python's stack that each operation of a recording came with.

    TorchScript keeps recordings as long as the process lives: of one of the starter model, 15 MB
    instead of 55. The weights are none of it.
    """
    torch._C._jit_pass_constant_pooling(graph)  # type: ignore[attr-defined]
    first, *others = graph.nodes()
    for node in others:
        node.copyMetadata(first)


class _Recorder(nn.Module):
    """The pass as a module that takes nothing but tensors.

    All weights hang on it: what did not would be a part of the recording.
    """

    def __init__(self, run: Pass, weights: Sequence[object]) -> None:
        super().__init__()
        self._run = run
        for number, held in enumerate(_held_by(weights)):
            if isinstance(held, Tensor):
                self.register_buffer(f"held_{number}", held)
            else:
                setattr(self, f"held_{number}", held)

    def forward(self, hidden: Tensor, turns: Tensor, scored: Tensor, *step: Any) -> Tensor:
        return self._run(hidden, turns, Answers(*step), scored)


def _held_by(weights: Iterable[object]) -> Iterator[Tensor | torch.ScriptObject]:
    """The tensors and packed weights among these, and those of kernels, whose methods they are."""
    for weight in weights:
        kernel = getattr(weight, "__self__", weight)
        parts = [kernel, *vars(kernel).values()] if hasattr(kernel, "__dict__") else [kernel]
        if isinstance(kernel, nn.Module):
            parts += [*kernel.parameters(), *kernel.buffers()]
        yield from (part for part in parts if isinstance(part, Tensor | torch.ScriptObject))
