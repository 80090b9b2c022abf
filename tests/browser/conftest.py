"""A real Chromium on real server processes. Any request to another host fails the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.chat_page import ChatPage, settle
from tests.browser.chromium import PATIENCE_MS
from tests.browser.dashboard import FAKE, Dashboard


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """One dashboard on the fake model, for every test that does not kill it."""
    running = Dashboard(tmp_path_factory.mktemp("shared") / "data").start()
    yield running
    running.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Dashboard]]:
    """Starts dashboards of a test's own, over `tmp_path / "data"`, and ends them."""
    started = []

    def start_(launcher: Path = FAKE, **environ: str) -> Dashboard:
        started.append(Dashboard(tmp_path / "data", launcher, **environ))
        return started[-1].start()

    yield start_
    for dashboard in started:
        dashboard.stop()


@pytest.fixture
def open_page(chromium: Browser, dashboard: Dashboard) -> Iterator[Callable[..., Page]]:
    """Opens browser windows; at the end, none of them may have asked another host for anything."""
    contexts = []
    elsewhere: list[str] = []

    def watch(url: str) -> None:
        if urlsplit(url).hostname not in ("127.0.0.1", None, ""):
            elsewhere.append(url)

    def open_(*, locale: str = "en-US", width: int = 1280, **options: object) -> Page:
        context = chromium.new_context(
            locale=locale, viewport={"width": width, "height": 800}, **options
        )
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: watch(request.url))
        return page

    yield open_
    for context in contexts:
        context.close()
    assert elsewhere == []


@pytest.fixture
def chat(open_page: Callable[..., Page], dashboard: Dashboard) -> ChatPage:
    """A new chat."""
    return ChatPage(open_page(), dashboard.url).open()


@pytest.fixture
def history(filled: Dashboard, open_page: Callable[..., Page]) -> Page:
    """The History page of what a module's own `filled` holds."""
    page = open_page()
    page.goto(f"{filled.url}/history")
    settle(page)
    expect(page.locator(".st-key-history_list")).to_be_visible()
    return page
