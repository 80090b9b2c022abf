"""What a loaded model says of a conversation before it answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm_backend.api.answering import prompt_and_room
from glm_backend.errors import ContextOverflow
from glm_backend.language_model import load_model
from glm_backend.models.model import LoadedModel, Message
from tests.models import tiny


def test_a_text_far_too_long_is_refused_without_being_cut_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.make(tmp_path)
    model = load_model(str(tmp_path))

    def never(*_: object) -> list[int]:
        raise AssertionError("everybody else waits for the template meanwhile")

    question: Message = {"role": "user", "content": "lazy dog. " * 100_000}
    exact = model.count_tokens([question | {"content": "lazy dog. " * 100}]) * 1000
    monkeypatch.setattr(LoadedModel, "prompt_ids", never)
    with pytest.raises(ContextOverflow) as refused:
        prompt_and_room(model, [question])
    model.close()
    assert refused.value.details["prompt_tokens"] == pytest.approx(exact, rel=0.05)
