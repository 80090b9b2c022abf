"""Runs first for every page: language, look and the list of pages."""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from ui.frame import draw_frame, keep_address  # noqa: E402  (the path is set first)
from ui.labels import t  # noqa: E402
from ui.language import choose_language  # noqa: E402

st.session_state["page_language"] = choose_language()

_FILES = {
    "overview": "0_Overview.py",
    "chat": "1_Chat.py",
    "settings": "2_Settings.py",
    "history": "3_History.py",
}
page = st.navigation(
    [
        st.Page(
            ROOT / "pages" / file,
            title=t(f"{name}.title"),
            url_path=name,
            default=name == "overview",
        )
        for name, file in _FILES.items()
    ]
)
st.set_page_config(
    page_title=f"{page.title} · {t('app.name')}",
    page_icon=str(ROOT / "ui" / "assets" / "icon.png"),
    layout="centered" if page.url_path == "chat" else "wide",
)
draw_frame()
keep_address(page.url_path)
page.run()
