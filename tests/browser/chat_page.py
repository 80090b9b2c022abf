"""The chat page as a person sees it: where to type, what stands there, what to press."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


class ChatPage:
    """Wraps a Playwright page that shows /chat."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def open(self, conversation_id: str = "") -> ChatPage:
        self.page.goto(f"{self.url}/chat" + (f"?c={conversation_id}" if conversation_id else ""))
        self.input.wait_for()
        return self

    @property
    def input(self) -> Locator:
        return self.page.get_by_test_id("stChatInputTextArea")

    @property
    def messages(self) -> Locator:
        return self.page.get_by_test_id("stChatMessage")

    @property
    def answer(self) -> Locator:
        """The text of the last message."""
        return self.page.locator("[class*='st-key-answer_']").last

    @property
    def stop_button(self) -> Locator:
        return self.key("chat_stop").locator("button")

    @property
    def conversation_id(self) -> str:
        found = re.search(r"[?&]c=(\w+)", self.page.url)
        return found[1] if found else ""

    def key(self, key: str) -> Locator:
        """The widget with this key."""
        return self.page.locator(f".st-key-{key}")

    def ask(self, text: str) -> ChatPage:
        """Sends a question; the URL names its conversation once this returns."""
        self.input.fill(text)
        self.input.press("Enter")
        self.page.wait_for_url(re.compile(r"[?&]c=\w+"))
        return self

    def wait_for_end(self) -> ChatPage:
        """Waits until nothing is being written and the page has settled."""
        expect(self.stop_button).to_have_count(0)
        # After a reconnection Streamlit keeps the former element beside the new one for a moment.
        expect(self.key("chat_regenerate")).to_have_count(1)
        expect(self.key("chat_regenerate")).to_be_visible()
        return self

    def settle(self) -> ChatPage:
        """Waits until the script has ended."""
        settle(self.page)
        return self

    def in_list(self) -> Locator:
        """The conversations in the sidebar."""
        return self.page.locator(".st-key-conversation_list [data-testid='stPageLink']")


def settle(page: Page) -> None:
    """Waits until the page's script has ended."""
    page.locator("[data-testid='stApp'][data-test-script-state='notRunning']").wait_for()
