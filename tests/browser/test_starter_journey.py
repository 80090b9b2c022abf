"""The whole way on the real starter model: from the overview to the exported file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

from glm_backend.services import Services
from glm_backend.settings import Settings
from tests.browser.chat_page import ChatPage, settle
from tests.browser.chromium import PATIENCE_MS
from tests.browser.dashboard import REAL, Dashboard

_LOAD_MS = 120_000


@pytest.fixture
def patience() -> Iterator[None]:
    """A real model on a busy machine takes its time."""
    expect.set_options(timeout=_LOAD_MS)
    yield
    expect.set_options(timeout=PATIENCE_MS)


@pytest.mark.starter
@pytest.mark.usefixtures("starter", "patience")  # converted before the dashboard asks for it
def test_ask_the_starter_model_load_it_in_int8_and_export(
    start: Callable[..., Dashboard],
    open_page: Callable[..., Page],
    model_dir: Path,
    tmp_path: Path,
) -> None:
    services = Services(Settings(data_dir=tmp_path / "data"))
    services.store.set_user_settings(services.user_id, {"temperature": 0.0})
    services.close()
    dashboard = start(REAL, GLM_MODEL_DIR=str(model_dir))
    page = open_page()
    page.goto(dashboard.url)
    expect(page.get_by_text("SmolLM2 135M Instruct is ready")).to_be_visible(timeout=_LOAD_MS)
    expect(page.get_by_text("speaks English first")).to_be_visible()

    page.locator(".st-key-overview_new_chat button").click()
    chat = ChatPage(page, dashboard.url)
    chat.ask("What is the capital of France?").wait_for_end()
    expect(chat.answer).to_contain_text("Paris")
    expect(chat.messages.last).to_contain_text(re.compile(r"\d tokens/s"))
    # By itself: after a short answer this model gives to some questions the same one again.
    chat.open().ask("Write a long story about a dragon, a princess and a wise old owl.")
    expect(chat.answer).to_contain_text(re.compile(r"\w{3}"))
    chat.stop_button.click()
    chat.wait_for_end()
    expect(chat.messages.last).to_contain_text("Stopped on request")

    page.get_by_test_id("stSidebarNavLink").filter(has_text="Settings").click()
    page.locator(".st-key-settings_quantization").get_by_text("INT8").click()
    settle(page)
    page.locator(".st-key-settings_load button").click()
    expect(page.get_by_text(re.compile("of memory · INT8"))).to_be_visible(timeout=_LOAD_MS)

    page.get_by_test_id("stSidebarNavLink").filter(has_text="History").click()
    settle(page)
    with page.expect_download() as download:
        page.locator(".st-key-history_export_csv button").click()
    path = tmp_path / "history.csv"
    download.value.save_as(path)
    table = pd.read_csv(path, encoding="utf-8-sig")
    assert list(table["role"]) == ["user", "assistant"] * 2
    assert "Paris" in table["content"][1]
    assert list(table["status"]) == ["complete", "complete", "complete", "stopped"]
    assert set(table["model"].dropna()) == {"SmolLM2 135M Instruct"}
