"""What is left when the process dies, and what a wrong setting or database says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from glm_backend.testing import FakeModel
from tests.browser.chat_page import ChatPage, settle
from tests.browser.dashboard import REAL, Dashboard
from tests.fakes import fake_services

Start = Callable[..., Dashboard]

#: Words that one flush interval (200 ms) and a slow machine may cost, at one word every 20 ms.
_LOST_AT_MOST = 25


def _last_word(text: str) -> int:
    return max(int(number) for number in re.findall(r"\bw(\d+)\b", text))


def test_a_killed_server_has_kept_the_answer_and_says_it_was_interrupted(
    start: Start, open_page: Callable[..., Page]
) -> None:
    dashboard = start()
    page = open_page()
    chat = ChatPage(page, dashboard.url).open()
    chat.ask("say 5000 words every 20 ms")
    expect(chat.answer).to_contain_text("w100")
    seen = _last_word(chat.answer.inner_text())
    dashboard.kill()
    dashboard.start()
    chat.open(chat.conversation_id)
    chat.wait_for_end()
    expect(chat.messages.last).to_contain_text("Interrupted")
    assert _last_word(chat.answer.inner_text()) >= seen - _LOST_AT_MOST
    chat.key("chat_regenerate").locator("button").click()
    chat.stop_button.click()
    expect(chat.page.get_by_text("2 / 2")).to_be_visible()
    dashboard.stop()
    assert "Traceback" not in dashboard.log


def test_a_page_finds_the_restarted_server_by_itself_and_keeps_the_draft(
    start: Start, open_page: Callable[..., Page]
) -> None:
    dashboard = start()
    page = open_page()
    chat = ChatPage(page, dashboard.url).open()
    chat.ask("before the restart").wait_for_end()
    chat.input.fill("a draft")
    connection = page.get_by_test_id("stApp")
    dashboard.kill()
    expect(connection).not_to_have_attribute("data-test-connection-state", "CONNECTED")
    dashboard.start()
    expect(connection).to_have_attribute("data-test-connection-state", "CONNECTED")
    expect(chat.input).to_have_value("a draft")
    chat.input.press("Enter")
    expect(chat.messages).to_have_count(4)
    chat.wait_for_end()
    expect(chat.answer).to_contain_text("a draft")


def test_a_wrong_setting_ends_with_a_message_and_code_2(tmp_path: Path) -> None:
    dashboard = Dashboard(tmp_path / "data", REAL, GLM_QUANTISATION="int8")
    assert dashboard.run_to_end() == 2
    assert "Did you mean GLM_QUANTIZATION?" in dashboard.log
    assert "Traceback" not in dashboard.log


def test_a_database_that_does_not_open_is_explained_and_tried_again(
    start: Start, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    database = data_dir / "glm.sqlite3"
    database.write_bytes(b"this is no database" * 100)
    dashboard = start()
    page = open_page(locale="zh-CN")
    page.goto(dashboard.url)
    expect(page.get_by_test_id("stAlert")).to_contain_text("不是可用的数据库")
    database.unlink()
    page.reload()
    expect(page.locator(".st-key-overview_new_chat")).to_be_visible()


def test_without_a_model_history_is_readable_and_the_page_says_what_to_do(
    start: Start, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    services = fake_services(tmp_path / "data", FakeModel())
    conversation = services.store.create_conversation(services.user_id).id
    services.chat.send(services.user_id, conversation, "an old question").wait_saved(10)
    services.close()
    dashboard = start(FAKE_MODEL_LOADED="0")
    page = open_page()
    chat = ChatPage(page, dashboard.url).open(conversation)
    expect(chat.messages).to_have_count(2)
    chat.input.fill("a new question")
    chat.input.press("Enter")
    expect(page.get_by_text("No model is loaded").first).to_be_visible()
    expect(chat.input).to_have_value("a new question")


def test_a_long_conversation_opens_with_its_last_thirty_messages(
    start: Start, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    services = fake_services(tmp_path / "data", FakeModel(context_length=100_000))
    conversation = services.store.create_conversation(services.user_id).id
    for i in range(40):
        services.chat.send(services.user_id, conversation, f"number {i}").wait_saved(10)
    services.close()
    page = open_page()
    chat = ChatPage(page, start().url).open(conversation)
    expect(chat.messages).to_have_count(30)
    chat.key("chat_earlier").locator("button").click()
    expect(chat.messages).to_have_count(60)
    chat.key("chat_earlier").locator("button").click()
    expect(chat.messages).to_have_count(80)
    expect(chat.messages.first).to_contain_text("number 0")
    expect(chat.key("chat_earlier")).to_have_count(0)
    settle(page)
