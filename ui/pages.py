"""Where the pages are, for links from one to another."""

from pathlib import Path

_PAGES = Path(__file__).resolve().parents[1] / "pages"

OVERVIEW = _PAGES / "0_Overview.py"
CHAT = _PAGES / "1_Chat.py"
SETTINGS = _PAGES / "2_Settings.py"
HISTORY = _PAGES / "3_History.py"
