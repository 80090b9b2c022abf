"""Makes docs/screenshots/*.png: the four pages in both languages, on the real starter model.

    python docs/make_screenshots.py [folder of converted models]

Every answer that is seen was written by the model, at each of the three precisions.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from glm_backend.models.manager import ModelRequest  # noqa: E402
from glm_backend.services import Services  # noqa: E402
from glm_backend.settings import Settings  # noqa: E402
from tests.browser.chat_page import settle  # noqa: E402
from tests.browser.chromium import launch  # noqa: E402
from tests.browser.dashboard import REAL, Dashboard  # noqa: E402

TARGET = ROOT / "docs" / "screenshots"
LIMIT_BYTES = 300_000
MODEL = "smollm2-135m"
QUESTIONS = {
    "int4": ["Why is the sky blue?", "Name three uses of a paper clip."],
    "int8": ["给我讲一个关于彩虹的小故事。", "What is the difference between a list and a tuple?"],
    "none": [
        "Explain how rainbows form.",
        "Write a Python function that reverses a string, and explain it briefly.",
    ],
}
#: What is looked for on the history page.
SEARCHED = "r"
#: Address and height of each picture.
PAGES = {
    "overview": ("/", 900),
    "chat": ("/chat?c={conversation}", 960),
    "settings": ("/settings", 1680),
    "history": ("/history", 1000),
    "usage": ("/history", 1100),
    "reading": ("/history?c={conversation}", 1100),
}


def ask_questions(settings: Settings) -> str:
    """Fills the database with answered questions; returns the last conversation."""
    services = Services(settings)
    conversation = ""
    for quantization, questions in QUESTIONS.items():
        services.models.load(ModelRequest(MODEL, quantization=quantization))  # type: ignore[arg-type]
        status = services.models.wait(timeout_s=300)
        if status.error is not None:
            raise status.error
        for question in questions:
            conversation = services.store.create_conversation(services.user_id).id
            overrides = {"temperature": 0.3, "seed": 7, "max_new_tokens": 220}
            live = services.chat.send(services.user_id, conversation, question, overrides)
            live.wait_saved(300)
    put_in_order(services)
    services.close()
    return conversation


def take(page: Page, dashboard: Dashboard, conversation: str, suffix: str) -> None:
    """One picture of each page."""
    for name, (path, height) in PAGES.items():
        page.set_viewport_size({"width": 1280, "height": height})
        page.goto(dashboard.url + path.format(conversation=conversation))
        settle(page)
        page.wait_for_timeout(1500)  # charts and fonts come after the script has ended
        if name == "history":
            at_work(page)
        if name == "usage":
            page.get_by_role("tab").nth(1).click()
            page.locator("canvas, svg.marks").first.wait_for()
            page.wait_for_timeout(2500)
        target = TARGET / f"{name}{suffix}.png"
        page.screenshot(path=target)
        if target.stat().st_size > LIMIT_BYTES:
            raise SystemExit(f"{target.name} is larger than {LIMIT_BYTES} bytes")


def at_work(page: Page) -> None:
    """The history page with a search, and two of what it found marked."""
    page.locator(".st-key-history_search input").fill(SEARCHED)
    page.locator(".st-key-history_search input").press("Enter")
    page.locator(".stMarkdownColoredBackground").first.wait_for()
    settle(page)
    for row in (0, 1):
        page.locator("[class*='st-key-mark_'] label").nth(row).click()
        page.wait_for_timeout(800)
        settle(page)


def put_in_order(services: Services) -> None:
    """Tags, a pin and a rating, as people give them."""
    store, user_id = services.store, services.user_id
    rows = store.list_conversations(user_id, limit=10)
    store.tag(user_id, [row.id for row in rows[:3]], "physics")
    store.tag(user_id, [rows[-1].id], "办公")
    store.pin(user_id, [rows[1].id])
    answer = store.path(user_id, rows[0].id)[-1]
    services.chat.rate(user_id, rows[0].id, answer.id, 1, "Short and right.")


def main() -> None:
    model_dir = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "data" / "models").resolve()
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data_dir = Path(folder) / "data"
        conversation = ask_questions(Settings(data_dir=data_dir, model_dir=model_dir))
        dashboard = Dashboard(data_dir, REAL, GLM_MODEL_DIR=str(model_dir)).start()
        dashboard.wait_for("/ready")
        browser = launch(playwright)
        for locale, suffix in (("en-US", ""), ("zh-CN", ".zh")):
            take(browser.new_page(locale=locale), dashboard, conversation, suffix)
        browser.close()
        dashboard.stop()


if __name__ == "__main__":
    main()
