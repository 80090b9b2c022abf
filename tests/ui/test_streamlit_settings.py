"""What .streamlit/config.toml must say: each line is there for a reason that is easily lost."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from streamlit import config

_FILE = Path(__file__).parents[2] / ".streamlit" / "config.toml"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.address", "127.0.0.1"),  # there is no sign-in
        ("server.fileWatcherType", "none"),
        ("runner.postScriptGC", False),  # it holds Python's lock, and answers wait
        ("browser.gatherUsageStats", False),
        ("client.showErrorDetails", "type"),
    ],
)
def test_streamlit_is_told(name: str, value: object) -> None:
    section, _, option = name.partition(".")
    assert tomllib.loads(_FILE.read_text(encoding="utf-8"))[section][option] == value
    assert config.get_options_for_section(section).keys() >= {option}, "this Streamlit has it"
