"""One person and a long history: found, put in order, taken away, brought in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Locator, Page, expect

from glm_backend.testing import FakeModel
from tests.browser.chat_page import settle
from tests.browser.dashboard import Dashboard
from tests.browser.history_page import download
from tests.fakes import fake_services
from ui.export import STREAMED_FROM

_TOPICS = ("季度报告的提纲", "a letter to a colleague", "周报怎么写")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """24 conversations by two models, eight of them on each of three topics."""
    data_dir = tmp_path_factory.mktemp("journey") / "data"
    services = fake_services(data_dir, FakeModel(words=["好的，", "写好了。"]))
    for i in range(24):
        services.models.model.name = f"model {'ab'[i % 2]}"  # type: ignore[attr-defined]
        conversation = services.store.create_conversation(services.user_id).id
        question = f"{_TOPICS[i % 3]} {i:02}"
        services.chat.send(services.user_id, conversation, question).wait_saved(10)
    services.close()
    running = Dashboard(data_dir).start()
    yield running
    running.stop()


def _rows(page: Page) -> Locator:
    return page.locator(".st-key-history_list [class*='st-key-history_row_']")


def _search(page: Page, text: str) -> None:
    box = page.locator(".st-key-history_search input")
    box.fill(text)
    box.press("Enter")


def _choose(page: Page, key: str, option: str) -> None:
    page.locator(f".st-key-{key} input").click()
    page.get_by_role("option", name=option).click()


def test_from_a_search_to_a_file_and_from_a_file_to_the_list(history: Page, tmp_path: Path) -> None:
    _search(history, "报")
    expect(history.get_by_text("all 16 that were found")).to_be_visible()
    expect(_rows(history)).to_have_count(16)
    marked = _rows(history).first.locator(".stMarkdownColoredBackground")
    expect(marked.first).to_have_text("报")

    history.locator(".st-key-history_filters button").click()
    _choose(history, "history_model", "model a")
    expect(history.get_by_text("all 8 that were found")).to_be_visible()
    history.keyboard.press("Escape")
    expect(history.get_by_role("button", name="Filters (1)")).to_be_visible()

    history.locator(".st-key-history_mark_page label").click()
    expect(history.get_by_text("8 marked")).to_be_visible()
    history.locator(".st-key-history_tags button").click()
    tag = history.locator(".st-key-history_tag_name input")
    tag.fill("第三季度")
    tag.press("Enter")
    history.locator(".st-key-history_tag_them button").click()
    expect(history.get_by_text("8 tagged “第三季度”")).to_be_visible()
    expect(_rows(history).first).to_contain_text("第三季度")
    history.keyboard.press("Escape")
    history.locator(".st-key-history_undo button").click()
    expect(history.get_by_text("“第三季度” taken off 8")).to_be_visible()
    expect(_rows(history).first).not_to_contain_text("第三季度")

    table = pd.read_csv(download(history, "history_export_csv", tmp_path), encoding="utf-8-sig")
    assert len(table) == 16
    assert table["conversation_title"].str.contains("报").all()
    history.locator(".st-key-history_export_more button").click()
    history.get_by_text("OpenAI messages (fine-tuning)").click()
    expect(history.get_by_text("for Excel")).to_have_count(0)
    lines = download(history, "export_download", tmp_path).read_text("utf-8").splitlines()
    assert len(lines) == 8
    history.get_by_role("button", name="Close").click()

    _bring_in(history, tmp_path)
    history.locator(".st-key-history_filters button").click()
    history.locator(".st-key-history_clear button").click()
    expect(history.locator(".st-key-history_filters button")).not_to_contain_text("(1)")
    settle(history)  # a field that is put away too soon does not hear that it was cleared
    history.keyboard.press("Escape")
    _search(history, "别处")
    expect(history.get_by_text("the one that was found")).to_be_visible()
    expect(_rows(history)).to_have_count(1)
    expect(_rows(history)).to_contain_text("2 messages")


def test_pinning_and_archiving_from_the_menu(history: Page) -> None:
    first = _rows(history).nth(2).get_by_role("link")
    title = first.inner_text()
    _rows(history).nth(2).locator("label").click()
    expect(history.get_by_text("1 marked")).to_be_visible()
    history.locator(".st-key-history_organise button").click()
    history.get_by_role("menuitem", name="Pin", exact=True).click()
    expect(history.get_by_text("1 pinned.")).to_be_visible()
    expect(_rows(history).first).to_contain_text(title)
    history.locator(".st-key-history_undo button").click()
    expect(history.get_by_text("1 unpinned.")).to_be_visible()


def test_a_second_tag_goes_to_what_is_marked_and_all_that_is_found_is_asked_about(
    history: Page,
) -> None:
    _search(history, "letter")
    expect(_rows(history)).to_have_count(8)
    _rows(history).nth(1).locator("label").click()
    expect(history.get_by_text("1 marked")).to_be_visible()
    history.locator(".st-key-history_tags button").click()
    for tag in ("first", "second"):
        field = history.locator(".st-key-history_tag_name input")
        field.fill(tag)
        field.press("Enter")
        history.locator(".st-key-history_tag_them button").click()
        expect(history.get_by_text(f"1 tagged “{tag}”")).to_be_visible()
    history.keyboard.press("Escape")
    history.locator(".st-key-history_unmark button").click()
    expect(history.get_by_text("None marked")).to_be_visible()
    history.locator(".st-key-history_tags button").click()
    history.locator(".st-key-history_untag_them button").click()
    question = "Take the tag “second” off all 8 conversations that were found?"
    expect(history.get_by_text(question)).to_be_visible()
    expect(history.locator(".st-key-history_tag_name")).to_have_count(0)
    history.locator(".st-key-history_untag_no button").click()
    expect(history.get_by_text(question)).to_have_count(0)
    expect(history.get_by_text("second", exact=True)).to_be_visible()


def test_pages_are_turned_above_the_list_and_below_it(history: Page) -> None:
    expect(_rows(history)).to_have_count(20)
    history.locator(".st-key-pages_below_history_page").get_by_text("2", exact=True).click()
    expect(_rows(history)).not_to_have_count(20)
    history.locator(".st-key-pages_above_history_page").get_by_text("1", exact=True).click()
    expect(_rows(history)).to_have_count(20)


_WIDE = f"""A first paragraph.

{"without-an-end-" * 40} [a link](http://elsewhere.example/)

| {" | ".join(f"column_{i}" for i in range(12))} |
|{"---|" * 12}
| {" | ".join("1234567890" for _ in range(12))} |
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_a_long_conversation_is_read_in_pages_and_nothing_runs_out_of_a_bubble(
    start: Callable[..., Dashboard], open_page: Callable[..., Page], tmp_path: Path, width: int
) -> None:
    services = fake_services(tmp_path / "data", FakeModel(words=[_WIDE], context_length=100_000))
    conversation = services.store.create_conversation(services.user_id).id
    for i in range(6):
        services.chat.send(services.user_id, conversation, f"number {i}").wait_saved(10)
    services.close()
    page = open_page(width=width, color_scheme="dark")
    page.goto(f"{start().url}/history?c={conversation}")
    frames = page.get_by_test_id("stMain").locator("iframe")
    expect(frames).to_have_count(10)
    bubble = frames.nth(1).content_frame
    expect(bubble.locator("p").first).to_have_text("A first paragraph.")
    for element in ("p >> nth=1", "table"):
        assert bubble.locator(element).evaluate(_ENDS_INSIDE)
    assert bubble.locator("a").evaluate("a => getComputedStyle(a).color") != "rgb(0, 0, 238)"
    page.set_viewport_size({"width": width - 60, "height": 800})
    page.wait_for_function(_WHOLE, arg=frames.nth(1).element_handle())
    page.locator(f".st-key-pages_below_reader_page_{conversation}_").get_by_text("2").click()
    expect(frames).to_have_count(2)
    expect(frames.first.content_frame.get_by_text("number 5")).to_be_visible()


_ENDS_INSIDE = """(element) => {
    const right = (e) => e.getBoundingClientRect().right, bubble = element.closest(".msg");
    return right(element) <= right(bubble) && right(bubble) <= innerWidth;
}"""
_WHOLE = "(frame) => frame.clientHeight >= frame.contentDocument.body.scrollHeight"


def test_a_conversation_is_read_rated_and_left_for_the_list_as_it_was(history: Page) -> None:
    _search(history, "letter")
    expect(_rows(history)).to_have_count(8)
    _rows(history).first.get_by_role("link").click()
    expect(history.get_by_role("heading", name="a letter to a colleague 22")).to_be_visible()
    history.locator("[class*='st-key-rating_'] button").first.click()
    history.get_by_role("button", name="Say why").click()
    history.locator("[class*='st-key-note_'] textarea").fill("短而清楚")
    history.locator(".st-key-note_keep button").click()
    expect(history.locator("[class*='st-key-noted_']")).to_contain_text("短而清楚")
    history.locator(".st-key-history_back a").click()
    expect(_rows(history)).to_have_count(8)
    expect(history.locator(".st-key-history_search input")).to_have_value("letter")


@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_runs_over_the_edge(
    filled: Dashboard, open_page: Callable[..., Page], width: int
) -> None:
    page = open_page(width=width, locale="zh-CN")
    page.goto(f"{filled.url}/history")
    settle(page)
    assert page.evaluate("document.querySelector('#stMain').scrollWidth") <= width
    _rows(page).first.get_by_role("link").click()
    expect(page.locator(".st-key-reader_bar")).to_be_visible()
    settle(page)
    assert page.evaluate("document.querySelector('#stMain').scrollWidth") <= width


def test_much_is_streamed_from_a_link(
    start: Callable[..., Dashboard], open_page: Callable[..., Page], tmp_path: Path
) -> None:
    services = fake_services(tmp_path / "data", FakeModel())
    for i in range(STREAMED_FROM):
        services.store.create_conversation(services.user_id, title=f"many {i}")
    services.close()
    page = open_page()
    page.goto(f"{start().url}/history")
    link = page.locator(".st-key-history_export_json a")
    with page.expect_download() as begun:
        link.click()
    begun.value.save_as(tmp_path / "all.json")
    document = json.loads((tmp_path / "all.json").read_bytes())
    assert len(document["conversations"]) == STREAMED_FROM


def _bring_in(history: Page, tmp_path: Path) -> None:
    """One conversation from elsewhere: seen first, then taken; what is none is named."""
    talk = [{"role": "user", "content": "从别处来"}, {"role": "assistant", "content": "欢迎"}]
    upload = tmp_path / "elsewhere.jsonl"
    upload.write_text(f"{json.dumps({'messages': talk})}\n{{}}\n", "utf-8")
    history.get_by_text("Import conversations").click()
    history.locator(".st-key-history_import input[type=file]").set_input_files(upload)
    expect(history.get_by_text("1 conversation with 2 messages would be imported")).to_be_visible()
    expect(history.get_by_text("1 cannot be taken")).to_be_visible()
    history.locator(".st-key-history_import_take button").click()
    expect(history.get_by_text("1 conversation with 2 messages was imported")).to_be_visible()
    history.locator(".st-key-history_import_done button").click()
