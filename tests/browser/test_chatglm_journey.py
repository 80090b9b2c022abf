"""Each published form of the family, picked on Settings of a real dashboard and talked to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from glm_backend.errors import CheckpointDamaged
from tests.browser.chat_page import ChatPage, settle
from tests.browser.dashboard import REAL, Dashboard
from tests.models import chatglm_tiny as tiny
from tests.models import test_ice_tokenizer as ice

#: The first load of a process imports torch and measures kernels, on a machine that may be busy.
LOAD_MS = 120_000


def _forms(root: Path) -> dict[str, tuple[Path, str]]:
    """name -> (folder, what the context meter says of it)."""
    second = tiny.config()
    third = tiny.config(_name_or_path="THUDM/chatglm3-6b", seq_length=8192)
    weights = tiny.weights(second)
    int4 = tiny.quantised(weights, 4)
    return {
        "chatglm2": (
            tiny.save(root / "a", second, weights, shards=2),
            "the model could take 32,768",
        ),
        "chatglm2 INT4": (
            tiny.save(root / "b", second | {"quantization_bit": 4}, int4),
            "the model could take 32,768",
        ),
        "chatglm3": (tiny.save(root / "c", third, weights, suffix=".safetensors"), "of 8,192"),
        "chatglm": (ice.folder(root / "d"), "of 128 tokens"),
    }


def test_every_form_is_picked_loaded_and_talked_to_and_a_bad_one_changes_nothing(
    start: Callable[..., Dashboard], open_page: Callable[..., Page], tmp_path: Path
) -> None:
    forms = _forms(tmp_path / "models")
    dashboard = start(REAL, GLM_MODEL=str(forms["chatglm2"][0]))
    page = open_page()
    for name, (folder, limit) in forms.items():
        _load(page, dashboard.url, folder)
        taken = page.get_by_text(f"Taken for {name.split()[0]}:")
        expect(taken).to_be_visible(timeout=LOAD_MS)
        expect(page.get_by_text("· INT4 ·")).to_have_count(1 if "INT4" in name else 0)
        chat = ChatPage(page, dashboard.url).open()
        expect(page.get_by_text(limit)).to_be_visible()
        chat.ask("你好")
        expect(chat.messages.last).to_contain_text("tokens/s")
        chat.wait_for_end()
    damaged = tiny.save(tmp_path / "e", tiny.config(num_layers=3), tiny.weights(tiny.config()))
    assert json.loads((damaged / "config.json").read_bytes())["num_layers"] == 3
    _load(page, dashboard.url, damaged)
    expect(page.get_by_text(CheckpointDamaged.template.partition(". ")[2])).to_be_visible()
    expect(page.get_by_text("Taken for chatglm:")).to_be_visible()


def _load(page: Page, url: str, folder: Path) -> None:
    """On Settings: another model, its path, the estimate, Load."""
    page.goto(f"{url}/settings")
    settle(page)
    box = page.locator(".st-key-settings_folder input")
    box.fill(str(folder))
    box.press("Enter")
    expect(page.get_by_text("Needs about")).to_be_visible()
    page.locator(".st-key-settings_load button").click()
    settle(page)
