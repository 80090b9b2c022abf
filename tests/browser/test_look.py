"""Languages, narrow screens, and what screen readers are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chat_page import ChatPage, settle
from tests.browser.dashboard import Dashboard

_PAGES = {"": "团队对话", "/chat": "新对话", "/settings": "设置", "/history": "历史"}


@pytest.mark.parametrize(("path", "heading"), _PAGES.items())
def test_pages_speak_the_browsers_language(
    open_page: Callable[..., Page], dashboard: Dashboard, path: str, heading: str
) -> None:
    page = open_page(locale="zh-CN")
    page.goto(dashboard.url + path)
    settle(page)
    expect(page.get_by_role("heading", name=heading).first).to_be_visible()
    expect(page.locator("html[lang='zh']")).to_have_count(1)


def test_the_language_can_be_chosen_and_stays(
    open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    page = open_page()
    page.goto(f"{dashboard.url}/settings")
    page.locator(".st-key-settings_language").get_by_text("中文").click()
    expect(page.get_by_role("heading", name="回答方式")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="回答方式")).to_be_visible()
    page.locator(".st-key-settings_language").get_by_text("跟随浏览器").click()
    expect(page.get_by_role("heading", name="How answers are made")).to_be_visible()
    settle(page)


@pytest.mark.parametrize("path", ["", "/chat", "/settings", "/history"])
def test_nothing_runs_over_the_edge_of_a_phone(
    open_page: Callable[..., Page], dashboard: Dashboard, path: str
) -> None:
    page = open_page(width=375)
    page.goto(dashboard.url + path)
    settle(page)
    assert page.evaluate("document.querySelector('#stMain').scrollWidth") <= 375


def test_a_chat_fits_on_a_phone(open_page: Callable[..., Page], dashboard: Dashboard) -> None:
    page = open_page(width=375)
    chat = ChatPage(page, dashboard.url).open()
    chat.ask("a_very_long_word_without_any_space_" * 6).wait_for_end()
    assert page.evaluate("document.querySelector('#stMain').scrollWidth") <= 375
    expect(chat.key("chat_regenerate")).to_be_visible()


def test_a_growing_answer_is_announced(chat: ChatPage) -> None:
    chat.ask("say 2000 words every 30 ms")
    expect(chat.answer).to_have_attribute("aria-live", "polite")
    chat.stop_button.click()
    chat.wait_for_end()
    expect(chat.answer).to_have_attribute("aria-live", "off")


def test_the_chat_can_be_used_with_the_keyboard_alone(chat: ChatPage) -> None:
    chat.input.focus()
    chat.page.keyboard.type("only keys")
    chat.page.keyboard.press("Enter")
    chat.wait_for_end()
    again = chat.key("chat_regenerate").get_by_role("button")
    again.focus()
    chat.page.keyboard.press("Enter")
    expect(chat.page.get_by_text("2 / 2")).to_be_visible()
