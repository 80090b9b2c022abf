"""The Chromium that tests, benchmarks and screenshots drive."""

from __future__ import annotations

import shutil

from playwright.sync_api import Browser, Playwright

#: Names that `install_chromium.sh` looks for too.
NAMES = ("chromium", "chromium-browser", "google-chrome")
#: Milliseconds that a test waits for what should be there at once: machines may be busy.
PATIENCE_MS = 20_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Playwright) -> Browser:
    """The system's Chromium, else the one that Playwright installed."""
    installed = next((path for name in NAMES if (path := shutil.which(name))), None)
    return playwright.chromium.launch(executable_path=installed, args=ARGUMENTS)
