"""Small talk for the tests of the store and of the exports."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from glm_backend.store import AnswerParameters, AnswerUpdate, Message, Store

ANSWER = AnswerParameters(
    model="chatglm3-6b",
    quantization="int4",
    temperature=0.8,
    top_p=0.9,
    top_k=40,
    min_p=0.05,
    typical_p=0.95,
    repetition_penalty=1.05,
    max_new_tokens=256,
    seed=2**63 - 1,
    stop=("\n\nUser:", "。"),
    system_prompt="You are kind.",
    left_out=2,
)


def ask(
    store: Store,
    user_id: str,
    conversation_id: str,
    question: str = "你好",
    text: str = "Hello!",
    *,
    after: Message | None = None,
    answer: AnswerParameters = ANSWER,
) -> tuple[Message, Message]:
    """A question and its complete answer below `after`."""
    parent_id = after.id if after else None
    asked, given = store.begin_turn(user_id, conversation_id, parent_id, question, answer, "me")
    store.write_answers([finished(given, text)])
    return asked, given


def finished(answer: Message, text: str) -> AnswerUpdate:
    """The end of an answer, with figures."""
    return AnswerUpdate(
        message_id=answer.id,
        content=text,
        status="complete",
        prompt_tokens=12,
        completion_tokens=34,
        ttft_ms=56.5,
        duration_ms=789.25,
        tokens_per_s=45.125,
        finish_reason="stop",
    )


class Clock:
    """A clock that goes on by one second at each look."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 24, 1, 50, 0, 123456, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time
