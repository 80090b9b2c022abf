"""Files as a person downloads them, read back with pandas."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from glm_backend.testing import FakeModel
from tests.browser.chat_page import ChatPage
from tests.browser.dashboard import Dashboard
from tests.browser.history_page import download
from tests.fakes import fake_services


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard with 25 conversations of one question and one answer."""
    data_dir = tmp_path_factory.mktemp("filled") / "data"
    services = fake_services(data_dir, FakeModel(words=["好的，", "=1+1"]))
    for i in range(25):
        conversation = services.store.create_conversation(services.user_id).id
        live = services.chat.send(services.user_id, conversation, f"question {i:02}")
        live.wait_saved(10)
    services.close()
    running = Dashboard(data_dir).start()
    yield running
    running.stop()


def _mark_row(page: Page, row: int) -> None:
    page.locator(".st-key-history_list [class*='st-key-mark_'] label").nth(row).click()


def test_everything_found_as_csv_and_json(history: Page, tmp_path: Path) -> None:
    table = pd.read_csv(download(history, "history_export_csv", tmp_path), encoding="utf-8-sig")
    assert len(table) == 50
    assert set(table["role"]) == {"user", "assistant"}
    assert set(table.loc[table["role"] == "assistant", "content"]) == {"好的，=1+1"}
    document = json.loads(download(history, "history_export_json", tmp_path).read_bytes())
    assert document["format"] == "glm-chat"
    assert len(document["conversations"]) == 25
    assert len(pd.json_normalize(document["conversations"], "messages")) == 50


def test_only_what_is_marked(history: Page, tmp_path: Path) -> None:
    _mark_row(history, 0)
    expect(history.get_by_text("1 marked")).to_be_visible()
    _mark_row(history, 2)
    expect(history.get_by_text("2 marked")).to_be_visible()
    table = pd.read_csv(download(history, "history_export_csv", tmp_path))
    assert sorted(table.loc[table["role"] == "user", "content"]) == ["question 22", "question 24"]


def test_only_what_is_found(history: Page, tmp_path: Path) -> None:
    box = history.locator(".st-key-history_search input")
    box.fill("question 07")
    box.press("Enter")
    expect(history.get_by_text("the one that was found")).to_be_visible()
    document = json.loads(download(history, "history_export_json", tmp_path).read_bytes())
    assert [c["title"] for c in document["conversations"]] == ["question 07"]


def test_a_conversation_is_read_in_bubbles(history: Page) -> None:
    history.get_by_role("link", name="question 24").click()
    expect(history.get_by_role("heading", name="question 24")).to_be_visible()
    bubbles = history.get_by_test_id("stMain").locator("iframe")
    expect(bubbles).to_have_count(2)
    expect(bubbles.first.content_frame.get_by_text("question 24")).to_be_visible()
    expect(bubbles.nth(1).content_frame.get_by_text("好的，=1+1")).to_be_visible()


def test_the_conversation_that_is_open_as_csv_and_json(
    filled: Dashboard, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    page = open_page()
    chat = ChatPage(page, filled.url).open()
    chat.in_list().first.locator("a").click()
    expect(chat.messages).to_have_count(2)
    chat.key("chat_export").get_by_role("button").first.click()
    table = pd.read_csv(download(page, "chat_export_csv", tmp_path), encoding="utf-8-sig")
    assert list(table["role"]) == ["user", "assistant"]
    document = json.loads(download(page, "chat_export_json", tmp_path).read_bytes())
    assert len(document["conversations"]) == 1


def test_deleting_asks_first_and_can_be_undone(history: Page) -> None:
    _mark_row(history, 1)
    expect(history.get_by_text("1 marked")).to_be_visible()
    history.locator(".st-key-history_delete button").click()
    expect(history.get_by_text("Delete this conversation?")).to_be_visible()
    history.locator(".st-key-history_delete_no button").click()
    expect(history.get_by_text("Delete this conversation?")).to_have_count(0)
    history.locator(".st-key-history_delete button").click()
    history.locator(".st-key-history_delete_yes button").click()
    expect(history.get_by_text("all 24 that were found")).to_be_visible()
    history.locator(".st-key-history_undo button").click()
    expect(history.get_by_text("all 25 that were found")).to_be_visible()


def test_the_browser_is_told_nothing_but_the_file(chromium: Browser, filled: Dashboard) -> None:
    """The route for programs on this machine refuses a page that comes under another name."""
    context = chromium.new_context()
    local = context.request.get(f"{filled.url}/api/export?format=csv")
    assert local.status == 200
    foreign = context.request.get(
        f"{filled.url}/api/export?format=csv", headers={"Host": "rebound.example"}
    )
    assert foreign.status == 403
    context.close()
