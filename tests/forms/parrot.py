"""A fake model that answers as the stub of the recorded forms, and how it is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from starlette.testclient import TestClient

from glm_backend.engine.request import SamplingParams
from glm_backend.models.model import Message
from glm_backend.testing import FakeCompletion, FakeModel


@dataclass
class Parrot(FakeModel):
    """Answers as the stub of the recorded forms: "回答：" and the question.

    recorded_stream: as that stub did when it streamed.
    """

    context_length: int = 10_000
    recorded_stream: bool = False

    def complete(
        self, messages: Sequence[Message], params: SamplingParams, *, client: str = ""
    ) -> FakeCompletion:
        words = ["回答：", query := messages[-1]["content"]]
        if self.recorded_stream:
            words = ["你好", "👋 ", f"{query}\n第二行"]
        return FakeModel.complete(replace(self, words=words), messages, params, client=client)


def ask(client: TestClient, **fields: object) -> httpx2.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "你好"}], **fields}
    return client.post("/v1/chat/completions", json=body)


def events_in(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
