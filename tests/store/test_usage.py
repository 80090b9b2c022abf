"""How fast models answered, as the store remembers it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glm_backend.store import Store
from glm_backend.store.usage import Speed
from tests.store.talk import ANSWER, ask


def test_speeds_are_means_by_model_and_precision(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id).id
    _, given = ask(store, user_id, conversation)
    ask(store, user_id, conversation, after=given)
    ask(store, user_id, conversation, after=given, answer=replace(ANSWER, quantization="int8"))
    assert store.speeds(user_id) == [
        Speed("chatglm3-6b", "int4", 2, pytest.approx(45.125), pytest.approx(56.5)),
        Speed("chatglm3-6b", "int8", 1, pytest.approx(45.125), pytest.approx(56.5)),
    ]


def test_answers_without_figures_and_of_other_users_do_not_count(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id).id
    store.begin_turn(user_id, conversation, None, "never answered", ANSWER, "me")
    other = store.ensure_user("somebody else")
    ask(store, other, store.create_conversation(other).id)
    assert store.speeds(user_id) == []
