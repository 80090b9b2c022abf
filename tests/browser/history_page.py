"""The history page as a person uses it, in any test."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page


def download(page: Page, key: str, folder: Path) -> Path:
    """Presses a button that hands out a file; gives where it was saved."""
    with page.expect_download() as begun:
        page.locator(f".st-key-{key} button").click()
    path = folder / begun.value.suggested_filename
    begun.value.save_as(path)
    return path
