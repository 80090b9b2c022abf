"""A model that is let go while it answers: what becomes of the answers, and of who comes late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glm_backend.engine.request import SamplingParams
from glm_backend.errors import EngineClosed, ModelNotReady
from glm_backend.live_answer import LiveAnswer
from glm_backend.models.manager import ModelRequest
from glm_backend.services import Services
from glm_backend.settings import Settings
from glm_backend.store import Message
from tests.models import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = tmp_path_factory.mktemp("tiny")
    tiny.make(made)
    return str(made)


@pytest.fixture
def services(tmp_path: Path, folder: str) -> Iterator[Services]:
    opened = Services(Settings(data_dir=tmp_path / "data", model=folder, max_concurrent=1))
    opened.load_default_model()
    assert opened.models.wait(120).state == "ready"
    yield opened
    opened.close()


class Step:
    """Holds a model before each of its passes, until it is open."""

    def __init__(self, services: Services) -> None:
        self._passes = threading.Semaphore(0)
        self._open = threading.Event()
        runner: Any = services.models.current()._runner
        forward = runner.forward

        def paced(batch: Any) -> Any:
            while not self._open.is_set() and not self._passes.acquire(timeout=0.01):
                time.sleep(0.001)
            return forward(batch)

        runner.forward = paced

    def until_there_is_text(self, answer: LiveAnswer) -> str:
        for _ in range(500):
            if answer.text:
                return answer.text
            self._passes.release()
            time.sleep(0.02)
        raise AssertionError("no text came")

    def open(self) -> None:
        self._open.set()


def ask(services: Services, text: str) -> LiveAnswer:
    conversation = services.store.create_conversation(services.user_id).id
    overrides = {"temperature": 2.0, "top_p": 1.0, "seed": 1}
    return services.chat.send(services.user_id, conversation, text, overrides)


def kept(services: Services, answer: LiveAnswer) -> Message:
    assert answer.wait_saved(10)
    return services.store.path(services.user_id, answer.conversation_id)[-1]


@pytest.mark.parametrize("way", ["unload", "swap"])
def test_answers_under_way_end_as_stopped_and_say_why(
    services: Services, folder: str, way: str
) -> None:
    step = Step(services)
    running, waiting = ask(services, "hello"), ask(services, "hello, too")
    shown = step.until_there_is_text(running)
    assert waiting.place == 1
    stats = services.engine_stats()
    assert stats is not None
    assert (stats.running, stats.waiting) == (1, 1)
    if way == "unload":
        letting_go = threading.Thread(target=services.models.unload)
        letting_go.start()
        step.open()
        letting_go.join()
    else:
        services.models.load(ModelRequest(folder, max_context=128))
        while services.models.status().model is not None:
            time.sleep(0.001)
        step.open()
        assert services.models.wait(120).state == "ready"
    first, second = kept(services, running), kept(services, waiting)
    for message in (first, second):
        assert (message.status, message.finish_reason) == ("stopped", "unloaded")
        assert message.can_be_continued
    assert first.content.startswith(shown)
    assert second.content == ""


def test_stop_is_told_from_unloading(services: Services) -> None:
    step = Step(services)
    answer = ask(services, "hello")
    answer.cancel()
    step.open()
    message = kept(services, answer)
    assert (message.status, message.finish_reason) == ("stopped", "cancelled")


def test_who_still_holds_a_model_that_was_let_go_is_told(services: Services) -> None:
    model = services.models.current()
    services.models.unload()
    for late in (lambda: model.submit([1], SamplingParams()), lambda: model.logits([1])):
        with pytest.raises(EngineClosed):
            late()
    assert services.engine_stats() is None
    conversation = services.store.create_conversation(services.user_id).id
    with pytest.raises(ModelNotReady):
        services.chat.send(services.user_id, conversation, "anybody there?")


def test_an_answer_that_comes_too_late_for_its_model_fails_and_says_so(services: Services) -> None:
    model = services.models.current()
    model.close()
    message = kept(services, ask(services, "hello"))
    assert message.status == "failed"
    assert "unloaded" in (message.error or "")
