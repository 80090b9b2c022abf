"""Fifty who write and fifty who read, all at once, as long as is wanted."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from glm_backend.errors import GLMError
from glm_backend.store import AnswerUpdate, ConversationFilter, Store
from tests.store.talk import ANSWER, finished


@dataclass
class Crowd:
    """What happened: how much was done, the longest that anybody waited, and who was turned away.

    said: the texts that each conversation must hold now.
    """

    writes: int = 0
    reads: int = 0
    longest_s: float = 0.0
    errors: list[Exception] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)


def gather(store: Store, user_id: str, *, seconds: float, each: int = 50) -> Crowd:
    """Runs the crowd; everything that it was promised is in `said`."""
    crowd, lock = Crowd(), threading.Lock()
    until = time.monotonic() + seconds

    def act(do: object, *arguments: object) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                do(*arguments)  # type: ignore[operator]
            except GLMError as error:
                crowd.errors.append(error)
            with lock:
                crowd.longest_s = max(crowd.longest_s, time.monotonic() - began)

    def write(conversation: str, parents: list[str]) -> None:
        said = crowd.said[conversation]
        asked = f"question {len(said)}"
        parent = parents[-1] if parents else None
        _, answer = store.begin_turn(user_id, conversation, parent, asked, ANSWER, "me")
        said.append(asked)
        store.write_answers([AnswerUpdate(answer.id, "half")])
        store.write_answers([finished(answer, f"answer {len(said)}")])
        said.append(f"answer {len(said)}")
        parents.append(answer.id)
        with lock:
            crowd.writes += 3

    def read(conversation: str) -> None:
        store.path(user_id, conversation)
        store.list_conversations(user_id, limit=20, filter=ConversationFilter(text="question"))
        store.usage(user_id, "day")
        with lock:
            crowd.reads += 3

    ids = [store.create_conversation(user_id).id for _ in range(each)]
    crowd.said = {conversation: [] for conversation in ids}
    threads = [threading.Thread(target=act, args=(write, each, [])) for each in ids]
    threads += [threading.Thread(target=act, args=(read, each)) for each in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return crowd


def lost(store: Store, user_id: str, crowd: Crowd) -> int:
    """How many of the texts that were committed are not there."""
    return sum(
        len(said) - sum(a == b.content for a, b in zip(said, path, strict=False))
        for conversation, said in crowd.said.items()
        for path in [store.path(user_id, conversation)]
    )
