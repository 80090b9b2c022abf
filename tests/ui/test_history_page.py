"""The history page's logic; marking rows and downloads are in tests/browser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.services import Services
from tests.ui.conftest import shown

Visit = Callable[..., AppTest]


@pytest.fixture
def page(visit: Visit, services: Services) -> AppTest:
    """Over 23 conversations."""
    for i in range(23):
        conversation = services.store.create_conversation(services.user_id).id
        services.chat.send(services.user_id, conversation, f"question {i:02}").wait_saved(10)
    return visit("HISTORY")


def test_the_newest_twenty_are_on_the_first_page(page: AppTest) -> None:
    table = page.dataframe[0].value
    assert list(table["title"])[:2] == ["question 22", "question 21"]
    assert len(table) == 20
    assert set(table["models"]) == {"fake"}
    assert "all 23 that were found" in shown(page)


def test_words_narrow_the_list(page: AppTest) -> None:
    page.text_input(key="history_search").set_value("question 1").run()
    assert len(page.dataframe[0].value) == 10
    page.text_input(key="history_search").set_value("no such words").run()
    assert "Nothing was found" in page.info[0].value
    assert page.button(key="history_delete").disabled


def test_days_and_models_narrow_the_list(page: AppTest) -> None:
    today = datetime.now(UTC).date()
    page.date_input(key="history_days").set_value((today, today)).run()
    assert "all 23" in shown(page)
    long_ago = today - timedelta(days=90)
    page.date_input(key="history_days").set_value((long_ago, long_ago)).run()
    assert "Nothing was found" in page.info[0].value
    page.date_input(key="history_days").set_value(()).run()
    page.selectbox(key="history_model").set_value("fake").run()
    assert "all 23" in shown(page)


def test_deleting_what_was_found_asks_first_and_can_be_undone(
    page: AppTest, services: Services
) -> None:
    page.text_input(key="history_search").set_value("question 1").run()
    page.button(key="history_delete").click().run()
    assert "Delete 10 conversations?" in shown(page)
    page.button(key="history_delete_yes").click().run()
    assert services.store.count_conversations(services.user_id) == 13
    page.button(key="history_undo").click().run()
    assert services.store.count_conversations(services.user_id) == 23


def test_an_empty_history_says_so(visit: Visit) -> None:
    app = visit("HISTORY", language="zh")
    assert "没有找到" in app.info[0].value


def test_a_shorter_list_is_shown_from_a_page_that_it_has(visit: Visit, services: Services) -> None:
    for i in range(45):
        services.store.create_conversation(services.user_id, title=f"{'ab'[i % 2]} {i:02}")
    page = visit("HISTORY")
    page.session_state["history_page"] = 3
    page.run()
    assert len(page.dataframe[0].value) == 5
    page.text_input(key="history_search").set_value("a ").run()
    assert not page.exception
    assert len(page.dataframe[0].value) == 3
