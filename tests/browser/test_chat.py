"""One person and one answer: asking, stopping, coming back to it, asking again."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.chat_page import ChatPage, settle
from tests.browser.dashboard import Dashboard


def test_an_answer_appears_while_it_is_written_and_shows_its_figures(chat: ChatPage) -> None:
    chat.ask("say 30 words every 50 ms")
    expect(chat.answer).to_contain_text("w3")
    expect(chat.stop_button).to_be_visible()
    expect(chat.answer).to_contain_text("w29")
    chat.wait_for_end()
    figures = chat.messages.last.get_by_test_id("stCaptionContainer")
    expect(figures).to_contain_text("tokens/s")
    expect(figures).to_contain_text("first token")
    expect(figures).to_contain_text("30 written")
    expect(figures).to_contain_text("seed")
    expect(chat.messages).to_have_count(2)


def test_stop_works_before_the_first_word(chat: ChatPage) -> None:
    chat.ask("say 5 words after 60000 ms")
    chat.stop_button.click()
    chat.wait_for_end()
    expect(chat.messages.last).to_contain_text("Stopped on request")


def test_stop_keeps_what_was_written(chat: ChatPage) -> None:
    chat.ask("say 2000 words every 30 ms")
    expect(chat.answer).to_contain_text("w5")
    chat.stop_button.click()
    chat.wait_for_end()
    expect(chat.answer).to_contain_text("w5")
    expect(chat.answer).not_to_contain_text("w1999")
    expect(chat.messages.last).to_contain_text("Stopped on request")


def test_an_answer_goes_on_while_another_page_is_looked_at(chat: ChatPage) -> None:
    chat.ask("say 60 words every 40 ms")
    expect(chat.answer).to_contain_text("w2")
    chat.page.get_by_test_id("stSidebarNavLink").filter(has_text="Settings").click()
    expect(chat.page.get_by_role("heading", name="How answers are made")).to_be_visible()
    chat.page.get_by_test_id("stSidebarNavLink").filter(has_text="Chat").click()
    chat.in_list().first.locator("a").click()
    expect(chat.answer).to_contain_text("w59")
    chat.wait_for_end()
    expect(chat.messages).to_have_count(2)


def test_a_reload_in_the_middle_comes_back_to_the_answer(chat: ChatPage) -> None:
    chat.ask("say 60 words every 40 ms")
    expect(chat.answer).to_contain_text("w2")
    chat.page.reload()
    expect(chat.stop_button).to_be_visible()
    expect(chat.answer).to_contain_text("w59")
    chat.wait_for_end()
    expect(chat.messages).to_have_count(2)


def test_a_second_tab_sees_the_same_answer_and_may_stop_it(
    chat: ChatPage, open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    chat.ask("say 2000 words every 30 ms")
    expect(chat.answer).to_contain_text("w2")
    other = ChatPage(open_page(), dashboard.url).open(chat.conversation_id)
    expect(other.answer).to_contain_text("w2")
    other.stop_button.click()
    other.wait_for_end()
    chat.wait_for_end()
    assert chat.answer.inner_text() == other.answer.inner_text()


def test_a_tab_that_stands_open_sees_what_another_one_asks(
    chat: ChatPage, open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    chat.ask("one two").wait_for_end()
    other = ChatPage(open_page(), dashboard.url).open(chat.conversation_id)
    expect(other.messages).to_have_count(2)
    chat.ask("say 20 words every 100 ms")
    expect(other.messages).to_have_count(4)
    other.wait_for_end()
    expect(other.answer).to_contain_text("w19")


def test_a_second_question_meanwhile_is_refused_and_stays_in_the_box(chat: ChatPage) -> None:
    chat.ask("say 2000 words every 30 ms")
    expect(chat.answer).to_contain_text("w2")
    chat.input.fill("too early")
    chat.input.press("Enter")
    expect(chat.page.get_by_text("still being answered")).to_be_visible()
    expect(chat.input).to_have_value("too early")
    for _ in range(3):
        chat.input.press("Enter")
        expect(chat.input).to_have_value("")
        expect(chat.input).to_have_value(re.compile("^too early ?$"))
    expect(chat.stop_button).to_be_visible()
    chat.stop_button.click()
    chat.wait_for_end()
    expect(chat.input).to_have_value("too early ")
    expect(chat.messages).to_have_count(2)
    chat.input.press("Enter")
    expect(chat.messages).to_have_count(4)


def test_what_is_typed_during_an_answer_survives_its_end(chat: ChatPage) -> None:
    chat.ask("say 25 words every 60 ms")
    chat.input.press_sequentially("my next question", delay=20)
    chat.wait_for_end()
    expect(chat.input).to_have_value("my next question")


@pytest.mark.parametrize("text", ["   ", "\n\n"])
def test_an_empty_message_is_refused_and_makes_no_conversation(chat: ChatPage, text: str) -> None:
    before = chat.in_list().count()
    chat.input.fill(text)
    chat.input.press("Enter")
    chat.settle()
    assert chat.conversation_id == ""
    expect(chat.in_list()).to_have_count(before)


def test_a_question_that_cannot_fit_is_refused_with_the_numbers(chat: ChatPage) -> None:
    chat.input.fill("word " * 2000)
    chat.input.press("Enter")
    expect(chat.page.get_by_text(re.compile("The question needs 2,?001 tokens"))).to_be_visible()
    expect(chat.input).to_have_value(re.compile("^word word"))
    assert chat.conversation_id == ""


def test_an_answer_that_fails_says_why_and_keeps_its_text(chat: ChatPage) -> None:
    chat.ask("say 4 words then fail")
    chat.wait_for_end()
    expect(chat.answer).to_contain_text("w3")
    expect(chat.messages.last.get_by_test_id("stAlert")).to_contain_text("as asked")


def test_a_link_to_no_conversation_shows_a_way_on_and_makes_nothing(chat: ChatPage) -> None:
    before = chat.in_list().count()
    chat.page.goto(f"{chat.url}/chat?c=nothing")
    expect(chat.page.get_by_text("There is no conversation nothing")).to_be_visible()
    chat.page.get_by_role("link", name="Start a new chat").click()
    chat.input.wait_for()
    expect(chat.in_list()).to_have_count(before)


def test_answering_again_keeps_the_older_version(chat: ChatPage) -> None:
    chat.ask("say 6 words every 20 ms").wait_for_end()
    chat.key("chat_regenerate").locator("button").click()
    expect(chat.page.get_by_text("2 / 2")).to_be_visible()
    chat.wait_for_end()
    expect(chat.messages).to_have_count(2)
    chat.messages.last.get_by_role("button", name="Previous version").click()
    expect(chat.page.get_by_text("1 / 2")).to_be_visible()
    chat.messages.last.get_by_role("button", name="Next version").click()
    expect(chat.page.get_by_text("2 / 2")).to_be_visible()


def test_an_edited_question_begins_a_branch_without_what_came_after_it(chat: ChatPage) -> None:
    chat.ask("first words").wait_for_end()
    chat.ask("second words").wait_for_end()
    expect(chat.messages).to_have_count(4)
    chat.messages.first.get_by_role("button", name="Edit").click()
    box = chat.messages.first.get_by_role("textbox")
    box.fill("say 40 words every 40 ms")
    chat.key("edit_send").locator("button").click()
    expect(chat.answer).to_contain_text("w3")
    expect(chat.messages).to_have_count(2)  # already while the answer grows
    chat.wait_for_end()
    expect(chat.page.get_by_text("2 / 2")).to_be_visible()
    chat.messages.first.get_by_role("button", name="Previous version").click()
    expect(chat.messages).to_have_count(4)
    expect(chat.messages.nth(2)).to_contain_text("second words")


def test_a_conversation_is_renamed_deleted_and_brought_back(chat: ChatPage) -> None:
    chat.ask("rename me please").wait_for_end()
    conversation = chat.conversation_id
    row = chat.page.locator(f"[class*='st-key-conversation_'][class*='{conversation}']")
    row.get_by_role("button", name="More").click()
    chat.page.get_by_role("menuitem", name="Rename").click()
    chat.key(f"title_{conversation}").get_by_role("textbox").fill("A *better* title")
    chat.key(f"title_{conversation}").get_by_role("textbox").press("Enter")
    expect(chat.page.get_by_role("heading", name="A *better* title")).to_be_visible()
    expect(row).to_contain_text("A *better* title")

    row.get_by_role("button", name="More").click()
    chat.page.get_by_role("menuitem", name="Delete").click()
    expect(chat.page.get_by_text("Deleted: A *better* title")).to_be_visible()
    expect(row).to_have_count(0)
    assert chat.conversation_id == ""
    chat.key("chat_undo").locator("button").click()
    expect(row).to_have_count(1)
    expect(chat.messages).to_have_count(2)


def test_the_way_from_the_overview_to_a_new_chat(
    open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    page = open_page()
    page.goto(dashboard.url)
    page.locator(".st-key-overview_new_chat button").click()
    page.wait_for_url("**/chat")
    settle(page)
    chat = ChatPage(page, dashboard.url)
    chat.ask("hello from the overview").wait_for_end()
    expect(chat.answer).to_contain_text("hello from the overview")


# --- what the page's own script does


def test_drafts_stay_with_their_conversations(chat: ChatPage) -> None:
    first = chat.ask("one two").wait_for_end().settle().conversation_id
    chat.input.fill("for the first")
    chat.page.get_by_test_id("stSidebarNavLink").filter(has_text="Settings").click()
    expect(chat.page.get_by_role("heading", name="How answers are made")).to_be_visible()
    chat.page.go_back()
    expect(chat.input).to_have_value("for the first")
    chat.key("chat_new").locator("button").click()
    expect(chat.input).to_have_value("")
    expect(chat.input).to_be_focused()
    second = chat.ask("three four").wait_for_end().conversation_id
    assert second != first
    expect(chat.input).to_have_value("")
    chat.input.fill("for the second")
    chat.page.locator(f"a[href*='{first}']").first.click()
    expect(chat.input).to_have_value("for the first")
    chat.page.reload()
    expect(chat.input).to_have_value("for the first")
    chat.ask("for the first").wait_for_end()
    chat.page.locator(f"a[href*='{second}']").first.click()
    expect(chat.input).to_have_value("for the second")
    chat.page.locator(f"a[href*='{first}']").first.click()
    expect(chat.input).to_have_value("")


def test_a_question_and_its_answer_come_into_sight_wherever_one_reads(chat: ChatPage) -> None:
    chat.ask("say 400 words every 0 ms").wait_for_end()
    chat.ask("say 400 words every 0 ms").wait_for_end()
    arrow = chat.page.locator("#to-newest")
    chat.messages.first.hover()
    chat.page.mouse.wheel(0, -4000)
    expect(arrow).to_be_visible()
    arrow.click()
    expect(arrow).to_be_hidden()
    chat.page.mouse.wheel(0, -4000)
    expect(arrow).to_be_visible()
    chat.ask("say 20 words every 50 ms")
    expect(chat.answer).to_be_in_viewport()
    chat.wait_for_end()


def test_a_refusal_is_in_sight_wherever_one_reads(chat: ChatPage) -> None:
    chat.ask("say 400 words every 0 ms").wait_for_end()
    chat.ask("say 2000 words every 20 ms")
    expect(chat.answer).to_contain_text("w3")
    chat.messages.first.hover()
    chat.page.mouse.wheel(0, -4000)
    chat.input.fill("too early")
    chat.input.press("Enter")
    expect(chat.page.get_by_text("still being answered")).to_be_in_viewport()
    chat.stop_button.click()
    chat.wait_for_end()


def test_copy_gives_the_text_as_it_was_written(
    open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    chat = ChatPage(page, dashboard.url).open()
    chat.ask("**bold** and `code`\n\n* a list").wait_for_end()
    page.evaluate("navigator.clipboard.writeText('something else')")
    chat.messages.last.get_by_role("button", name="Copy").click()
    expect(page.get_by_text("Copied.")).to_be_visible()
    written = page.evaluate("navigator.clipboard.readText()")
    assert written.startswith("**bold** and `code`\n\n* a list"), written
    expect(chat.messages.last.get_by_test_id("stCode")).to_be_hidden()


def test_where_the_clipboard_is_closed_the_text_is_shown(
    open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    page = open_page()
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    chat = ChatPage(page, dashboard.url).open()
    chat.ask("**bold**").wait_for_end()
    chat.messages.last.get_by_role("button", name="Copy").click()
    expect(chat.messages.last.get_by_test_id("stCode")).to_be_visible()
    expect(page.get_by_text("Copied.")).to_be_hidden()


def test_what_is_edited_is_typed_at_once_and_sent_by_keys(chat: ChatPage) -> None:
    chat.ask("one two").wait_for_end()
    chat.messages.first.get_by_role("button", name="Edit").click()
    field = chat.messages.first.locator("textarea")
    expect(field).to_be_focused()
    chat.page.keyboard.type(" three")
    chat.page.keyboard.press("Control+Enter")
    expect(chat.messages.first).to_contain_text("one two three")
    chat.wait_for_end()
    expect(chat.messages.first.locator("textarea")).to_have_count(0)


def test_one_that_another_tab_deletes_can_be_brought_back(
    chat: ChatPage, open_page: Callable[..., Page], dashboard: Dashboard
) -> None:
    chat.ask("keep me").wait_for_end()
    other = ChatPage(open_page(), dashboard.url).open(chat.conversation_id)
    expect(other.messages).to_have_count(2)
    chat.key(f"menu_{chat.conversation_id}").locator("button").click()
    chat.page.get_by_role("menuitem", name="Delete").click()
    other.key("chat_restore").locator("button").click()
    expect(other.messages).to_have_count(2)
