"""What a pass gives each of its sequences: logits, or an error of that sequence alone.

Where the pass of several fails, each has one by itself, so that only what cannot go on ends.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from glm_backend.engine.runner import Runner
from glm_backend.engine.scheduler import Planned
from glm_backend.errors import AnswerTooLarge, GLMError, InternalError, says_out_of_memory

#: Logits of the scored tokens of one stretch, [scored, vocab], or why there are none.
Outcome = NDArray[np.float32] | GLMError

logger = logging.getLogger(__name__)


def outcomes(runner: Runner, planned: Sequence[Planned]) -> list[Outcome]:
    """One for each part, from a pass of all of them where that works."""
    if runner.batched or len(planned) == 1:
        try:
            logits = runner.forward([part.stretch for part in planned])
        except Exception as error:
            return outcomes_apart(runner, planned, error)
        return split(logits, planned)
    return _one_by_one(runner, planned)


def outcomes_apart(runner: Runner, planned: Sequence[Planned], error: Exception) -> list[Outcome]:
    """The same once the pass of all has failed with `error`."""
    if len(planned) == 1:
        logger.error("forward pass failed", exc_info=error)
        return [_as_ours(error, planned[0])]
    if says_out_of_memory(error):
        return _without_the_largest(runner, planned, error)
    return _one_by_one(runner, planned)


def split(logits: Tensor, planned: Sequence[Planned]) -> list[Outcome]:
    """The logits of each part: [scored, vocab]."""
    rows, ends = logits.numpy(), accumulate(part.stretch.scored for part in planned)
    return [rows[start:end] for start, end in pairwise(chain([0], ends))]


def fault(error: Exception) -> InternalError:
    """An exception nobody foresaw."""
    return InternalError(message=_in_one_line(error))


def _one_by_one(runner: Runner, planned: Sequence[Planned]) -> list[Outcome]:
    return [outcomes(runner, [part])[0] for part in planned]


def _without_the_largest(
    runner: Runner, planned: Sequence[Planned], error: Exception
) -> list[Outcome]:
    """The pass again without the longest sequence, which makes room for the others."""
    largest = max(planned, key=lambda part: part.stretch.end)
    logger.warning("out of memory in a batch of %d: %s", len(planned), _in_one_line(error))
    rest = iter(outcomes(runner, [part for part in planned if part is not largest]))
    failed = _as_ours(error, largest)
    return [failed if part is largest else next(rest) for part in planned]


def _as_ours(error: Exception, part: Planned) -> GLMError:
    if says_out_of_memory(error):
        return AnswerTooLarge(tokens=part.stretch.end)
    return fault(error)


def _in_one_line(error: Exception) -> str:
    """Names an exception, without a page of tensor shapes."""
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else repr(error)
