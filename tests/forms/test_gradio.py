"""The original web demo: its widgets, its defaults, and an answer that grows in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from glm_backend.gradio_demo import answers
from glm_backend.models.model import Message
from glm_backend.testing import FakeModel
from tests.browser.chromium import PATIENCE_MS
from tests.browser.dashboard import free_port
from tests.models import chatglm_tiny as tiny

ROOT = Path(__file__).parents[2]

#: (label, least, most, default) of the original's sliders.
SLIDERS = [
    ("Maximum length", 0, 32768, 8192),
    ("Top P", 0, 1, 0.8),
    ("Temperature", 0, 1, 0.95),
]


CONFIG = """
import json
from glm_backend.gradio_demo import make_demo
from glm_backend.testing import FakeModel
parts = make_demo(FakeModel(), "Demo").config["components"]
print(json.dumps([[part["type"], part["props"]] for part in parts], default=str))
"""


def test_the_widgets_are_the_originals() -> None:
    """(In a process of its own: Gradio leaves an event loop open.)"""
    done = subprocess.run([sys.executable, "-c", CONFIG], capture_output=True, cwd=ROOT, check=True)
    parts = json.loads(done.stdout)
    sliders = [
        (p["label"], p["minimum"], p["maximum"], p["value"]) for k, p in parts if k == "slider"
    ]
    assert sliders == SLIDERS
    buttons = [p["value"] for kind, p in parts if kind == "button"]
    assert buttons == ["Submit", "Clear History"]
    assert [kind for kind, _ in parts].count("chatbot") == 1


def test_the_sliders_reach_the_model_and_the_conversation_grows() -> None:
    model = FakeModel(words=("你", "好"))
    turns: list[Message] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    grown = list(answers(model, "new", turns, max_length=40, top_p=0, temperature=0.95))
    assert [step[-1]["content"] for step in grown] == ["你", "你好"]
    assert grown[-1][:3] == [*turns, {"role": "user", "content": "new"}]
    messages, params = model.asked[0]
    assert list(messages) == grown[-1][:3]
    room = 40 - model.count_tokens(messages)
    assert (params.temperature, params.top_p, params.max_new_tokens) == (0.95, 0.01, room)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A window; it may ask no other host for anything."""
    elsewhere: list[str] = []
    context = chromium.new_context(locale="en-US")
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("request", lambda request: elsewhere.append(request.url))
    yield page
    context.close()
    hosts = {urlsplit(url).hostname for url in elsewhere} - {"127.0.0.1", None, ""}
    assert not hosts


SCRIPTED = """
import sys
from glm_backend import errors
from glm_backend.gradio_demo import make_demo
from glm_backend.testing import FakeModel

class Once(FakeModel):
    def complete(self, messages, params, *, client=""):
        if len(self.asked) == 1:
            self.error = errors.NumericalError()
        return super().complete(messages, params)

model = Once(words=("Hello", " from", " here"), pause_s=0.2)
make_demo(model, "Demo").queue().launch(share=False, server_port=int(sys.argv[1]))
"""


@contextmanager
def running(*command: str, **environ: str) -> Iterator[str]:
    """A page in a process of its own; its address, once it answers."""
    kept = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, *command],
        env=kept | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "http" in line)
            yield line.split()[-1]
        finally:
            process.kill()


@pytest.mark.browser
def test_a_question_is_answered_and_an_error_is_no_answer(page: Page, tmp_path: Path) -> None:
    with running("-c", SCRIPTED, str(free_port()), HOME=str(tmp_path)) as url:
        page.goto(url)
        box, submit = page.get_by_placeholder("Input..."), page.get_by_role("button", name="Submit")
        box.fill("Who are you?")
        submit.click()
        bot = page.locator(".message.bot")
        expect(bot).to_contain_text("Hello from here")
        expect(page.locator(".message.user")).to_contain_text("Who are you?")
        expect(box).to_have_value("")
        box.fill("again")
        submit.click()
        expect(page.get_by_text("not finite")).to_be_visible()
        page.get_by_role("button", name="Clear History").click()
        expect(bot).to_have_count(0)


@pytest.mark.browser
def test_the_command_serves_the_page_to_this_machine_only(tmp_path: Path, page: Page) -> None:
    config = tiny.config(_name_or_path="THUDM/chatglm2-6b")
    folder = tiny.save(tmp_path / "chatglm2-6b", config, tiny.weights(config))
    port = str(free_port())
    command = ("-m", "glm_backend", "gradio", "--model", str(folder))
    with running(
        *command, GLM_DATA_DIR=str(tmp_path / "data"), GRADIO_SERVER_PORT=port, HOME=str(tmp_path)
    ) as url:
        assert url == f"http://127.0.0.1:{port}"
        page.goto(url)
        expect(page.get_by_role("heading")).to_contain_text("ChatGLM2-6B")
