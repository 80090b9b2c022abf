"""A file on its way in: looked through first, taken once, reported on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.errors import Phrase
from glm_backend.services import Services
from glm_backend.transfer import Entry, ImportReport, import_file
from tests.ui.conftest import shown
from ui.importing import _why

Visit = Callable[..., AppTest]

_GOOD = {
    "messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好！"}]
}
_NO_FORM = {"title": "Lost", "nothing": True}


@pytest.fixture
def page(visit: Visit) -> AppTest:
    return visit("HISTORY")


def _upload(page: AppTest, *conversations: Any) -> AppTest:
    text = "\n".join(json.dumps(each) for each in conversations)
    file = ("talks.jsonl", text.encode(), "application/jsonl")
    page.file_uploader(key="history_import").set_value(file).run()
    assert not page.exception
    return page


def test_a_file_is_looked_through_before_anything_is_taken(
    page: AppTest, services: Services
) -> None:
    _upload(page, _GOOD, _NO_FORM)
    assert "**talks\\.jsonl** (1 KB), looked through and not taken yet" in shown(page)
    assert "Recognised: OpenAI messages (1), not known (1)." in shown(page)
    assert "1 conversation with 2 messages would be imported" in shown(page)
    assert "1 cannot be taken" in shown(page)
    entries = page.dataframe[0].value
    assert list(entries["Title"]) == ["Lost"]
    assert "none of the forms that are known" in entries.iloc[0, -1]
    assert services.store.count_conversations(services.user_id) == 0
    page.button(key="history_import_cancel").click().run()
    assert len(page.file_uploader) == 1
    assert services.store.count_conversations(services.user_id) == 0


def test_what_was_looked_through_is_taken_and_twice_adds_nothing(
    page: AppTest, services: Services
) -> None:
    _upload(page, _GOOD)
    page.button(key="history_import_take").click().run()
    assert "1 conversation with 2 messages was imported" in shown(page)
    page.button(key="history_import_done").click().run()
    assert services.store.count_conversations(services.user_id) == 1
    _upload(page, _GOOD)
    assert "1 is here already" in shown(page)
    assert "history_import_take" not in [button.key for button in page.button]


def test_an_import_is_found_again_by_a_tab_that_was_reloaded_until_its_report_was_read(
    page: AppTest, visit: Visit, services: Services
) -> None:
    _upload(page, _GOOD)
    assert len(visit("HISTORY").file_uploader) == 1  # nothing was begun yet
    page.button(key="history_import_take").click().run()
    again = visit("HISTORY")
    assert "1 conversation with 2 messages was imported" in shown(again)
    again.button(key="history_import_done").click().run()
    assert len(again.file_uploader) == 1
    assert len(visit("HISTORY").file_uploader) == 1


def test_the_upload_is_let_go_of_once_it_is_a_file(page: AppTest, services: Services) -> None:
    _upload(page, _GOOD)
    assert len(page.file_uploader) == 0
    folder = services.settings.data_dir
    assert not [path for path in folder.iterdir() if path.suffix not in _DATABASE]


_DATABASE = (".sqlite3", ".sqlite3-wal", ".sqlite3-shm")


def test_reasons_are_in_the_readers_language(visit: Visit) -> None:
    page = _upload(visit("HISTORY", language="zh"), _GOOD, _NO_FORM)
    assert "识别为：OpenAI 消息（1 个）、无法识别（1 个）。" in shown(page)
    assert "将导入 1 个对话，共 2 条消息。" in shown(page)
    assert "1 个无法导入" in shown(page)
    assert "请在文件中修正" in page.dataframe[0].value.iloc[0, -1]


def test_one_message_is_one_and_what_cannot_be_read_has_no_title(page: AppTest) -> None:
    _upload(page, {"messages": _GOOD["messages"][:1]}, {"nothing": True})
    assert "1 conversation with 1 message would be imported" in shown(page)
    assert list(page.dataframe[0].value["Title"]) == ["–"]


def test_several_reasons_are_joined_as_the_language_does(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = [Phrase("{count} texts had characters that cannot be kept", count=n) for n in (1, 2)]
    entry = Entry(1, "t", "openai", "imported", notes=notes)
    monkeypatch.setattr("ui.labels._language", lambda: "zh")
    assert _why(entry) == "1 段文字含有无法保存的字符；2 段文字含有无法保存的字符"


def test_the_way_for_larger_files_is_said(page: AppTest) -> None:
    assert "Up to 500 MB here. Larger files: python -m glm_backend import FILE" in shown(page)


def test_a_second_click_while_it_is_read_does_not_read_it_too(
    page: AppTest, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    _upload(page, _GOOD)
    importing = page.session_state["history_importing"]
    begun, go_on = threading.Event(), threading.Event()

    def slowly(*arguments: Any, **options: Any) -> ImportReport:
        begun.set()
        go_on.wait(10)
        return import_file(*arguments, **options)

    monkeypatch.setattr("ui.importing.import_file", slowly)
    importing.take()
    begun.wait(10)
    first = importing.taken
    importing.take()
    assert importing.taken is first
    go_on.set()
    assert first.wait(10)
    assert services.store.count_conversations(services.user_id) == 1
