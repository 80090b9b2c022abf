"""The history page over 1,000,000 messages, in a real Chromium: from a click to what it shows."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from benchmarks.big_store import RARE, big_store, copy_of
from benchmarks.report import Row
from tests.browser.chat_page import settle
from tests.browser.chromium import launch
from tests.browser.dashboard import Dashboard

RUNS = 5
GOAL_MS = 500

#: Begins to watch: `window.took` promises the milliseconds from the next click or Enter until the
#: page says another number of conversations (or shows its list), and that is painted.
_WATCH = """(selector) => { window.took = new Promise((done) => {
  let began = null;
  const text = () => document.querySelector(selector)?.innerText ?? "";
  const before = text();
  const begin = (event) => {
    if (event.type === "keydown" && event.key !== "Enter") return;
    began ??= performance.now();
  };
  for (const kind of ["pointerdown", "keydown"])
    document.addEventListener(kind, begin, {capture: true});
  const watch = new MutationObserver(() => {
    const now = text();
    if (began === null || now === "" || now === before) return;
    watch.disconnect();
    requestAnimationFrame(() => done(performance.now() - began));
  });
  watch.observe(document.body, {subtree: true, childList: true, characterData: true});
}); }"""
_COUNT = ".st-key-history_choice"
_ROWS = ".st-key-history_list"


def rows() -> list[Row]:
    """One dashboard over a copy of the big history."""
    expect.set_options(timeout=60_000)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir()
        copy_of(big_store(), data).rename(data / "glm.sqlite3")
        dashboard = Dashboard(data).start()
        try:
            with sync_playwright() as playwright:
                browser = launch(playwright)
                page = browser.new_page(locale="en-US")
                page.set_default_timeout(60_000)
                found = _measured(page, dashboard.url)
                browser.close()
        finally:
            dashboard.stop()
    return found


def _measured(page: Page, url: str) -> list[Row]:
    page.goto(url)
    settle(page)
    found = [_row("first page, from another page", _ROWS, page, _open, _leave)]
    _open(page)
    for text in (RARE, "ba", "一", "一丁", "bada cafo"):
        found.append(_row(f"search: {text}", _COUNT, page, _searching(text), _searching("")))
    for shelf in ("Archived", "Pinned", "All"):
        found.append(_row(f"shelf: {shelf}", _COUNT, page, _turning(shelf), _turning(None)))
    found.append(_row("second page", _ROWS, page, _to_page("2"), _to_page("1")))
    return found


def _row(
    what: str, selector: str, page: Page, do: Callable[[Page], None], undo: Callable[[Page], None]
) -> Row:
    taken = []
    for _ in range(RUNS):
        page.evaluate(_WATCH, selector)
        do(page)
        taken.append(float(page.evaluate("() => window.took")))
        settle(page)
        undo(page)
        page.wait_for_timeout(300)
        settle(page)
    middle = statistics.median(taken)
    spread = f"{min(taken):.0f} to {max(taken):.0f} ms"
    return Row(
        f"history page, {what}", f"{middle:.0f} ms", spread, f"< {GOAL_MS} ms", middle < GOAL_MS
    )


def _open(page: Page) -> None:
    page.get_by_test_id("stSidebarNavLink").filter(has_text="History").click()


def _leave(page: Page) -> None:
    page.get_by_test_id("stSidebarNavLink").filter(has_text="Settings").click()
    page.get_by_role("heading", name="How answers are made").wait_for()


def _searching(text: str) -> Callable[[Page], None]:
    def search(page: Page) -> None:
        box = page.locator(".st-key-history_search input")
        box.fill(text)
        box.press("Enter")

    return search


def _turning(shelf: str | None) -> Callable[[Page], None]:
    shelves = ".st-key-history_shelf button"
    if shelf is None:
        return lambda page: page.locator(shelves).first.click()
    return lambda page: page.locator(shelves).get_by_text(shelf, exact=True).click()


def _to_page(number: str) -> Callable[[Page], None]:
    return lambda page: (
        page.locator(".st-key-history_page").get_by_text(number, exact=True).first.click()
    )
