"""What of a conversation fits a model's context.

The oldest turns leave first; the system prompt and the last question stay. A question that cannot
fit even alone is refused with the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glm_backend.completion import Completer
from glm_backend.engine.request import SamplingParams
from glm_backend.errors import ContextOverflow
from glm_backend.models.model import Message

#: An answer may reserve at most this share of the context; the rest is for the conversation.
_ANSWER_SHARE = 0.5
#: What there must be for an answer that is carried on, at least.
_CARRIED_ON = 64


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """The messages to send, how many earlier ones were left out, and the room for the answer."""

    messages: tuple[Message, ...]
    left_out: int
    prompt_tokens: int
    max_new_tokens: int


def fit(
    model: Completer,
    system_prompt: str,
    history: Sequence[Message],
    params: SamplingParams,
    *,
    context: int | None = None,
    reserved: int | None = None,
) -> FittedPrompt:
    """Chooses the newest turns of `history` that fit; it ends with the question, or with the
    beginning of its answer.

    A turn is a question with its answers; turns are kept or left out whole. context: tokens of
    prompt and answer together, where they shall be fewer than the model could take. reserved:
    of these for the answer, where that is less than it may take.
    Raises ContextOverflow when the system prompt and the question alone are too long.
    """
    context = model.context_length if context is None else context
    wanted = params.max_new_tokens if reserved is None else reserved
    reserved = min(wanted, int(context * _ANSWER_SHARE))
    limit = context - reserved
    system: list[Message] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    starts = [i for i, message in enumerate(history) if message["role"] == "user"]

    def tokens_from(start: int) -> int:
        return model.count_tokens([*system, *history[start:]])

    start, tokens = _newest_that_fit(starts, tokens_from, limit)
    if history[-1]["role"] == "assistant" and tokens > limit:
        reserved = min(reserved, _CARRIED_ON)
        limit = context - reserved
    if tokens > limit:
        raise ContextOverflow(
            prompt_tokens=tokens,
            model=model.name,
            limit=limit,
            context=context,
            reserved=reserved,
        )
    return FittedPrompt(
        messages=(*system, *history[start:]),
        left_out=start,
        prompt_tokens=tokens,
        max_new_tokens=min(params.max_new_tokens, context - tokens),
    )


def _newest_that_fit(
    starts: Sequence[int], tokens_from: Callable[[int], int], limit: int
) -> tuple[int, int]:
    """The earliest start whose messages fit, and their tokens; the last start if none does.

    Doubles the number of turns from the newest on, then halves the gap, so that a conversation
    much longer than the context is never tokenised whole.
    """
    fits, tokens = len(starts) - 1, tokens_from(starts[-1])
    too_long, turns = -1, 2
    while tokens <= limit and fits > too_long + 1:
        probe = max(len(starts) - turns, 0) if too_long < 0 else (fits + too_long) // 2
        count = tokens_from(starts[probe])
        if count <= limit:
            fits, tokens = probe, count
        else:
            too_long = probe
        turns *= 2
    return starts[fits], tokens
