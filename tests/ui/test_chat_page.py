"""The chat page's logic; what needs a browser is in tests/browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.errors import StoreFull
from glm_backend.services import Services
from tests.ui.conftest import shown

Visit = Callable[..., AppTest]


def _ask(app: AppTest, text: str) -> AppTest:
    app.chat_input(key="chat_input").set_value(text).run()
    assert not app.exception
    return app


def test_the_first_question_makes_the_conversation(visit: Visit, services: Services) -> None:
    app = _ask(visit("CHAT"), "hello there")
    rows = services.store.list_conversations(services.user_id, limit=5)
    assert [row.title for row in rows] == ["hello there"]
    assert app.query_params["c"] == rows[0].id
    assert len(app.chat_message) == 2
    assert "hello there" in app.chat_message[1].markdown[0].value
    assert "tokens/s" in shown(app)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("   ", "empty"), ("word " * 2000, "2001 tokens"), ("x " * 500_000, "500001 tokens")],
)
def test_what_is_refused_goes_back_into_the_box_and_makes_nothing(
    visit: Visit, services: Services, text: str, reason: str
) -> None:
    app = _ask(visit("CHAT"), text)
    assert reason in app.error[0].value
    assert app.chat_input(key="chat_input").proto.value == text
    assert services.store.count_conversations(services.user_id) == 0


def test_without_a_model_the_question_is_kept_and_the_history_is_readable(
    visit: Visit, services: Services, answered: str
) -> None:
    services.models.unload()
    app = visit("CHAT", c=answered)
    assert "No model is loaded" in app.info[0].value
    _ask(app, "a new one")
    assert "No model is loaded" in app.error[0].value
    assert app.chat_input(key="chat_input").proto.value == "a new one"
    assert len(app.chat_message) == 2


def test_a_refusal_is_in_the_readers_language(visit: Visit, services: Services) -> None:
    services.models.unload()
    app = _ask(visit("CHAT", language="zh"), "你好")
    assert "模型尚未就绪" in app.error[0].value


def test_an_unknown_conversation_is_said_and_not_made(visit: Visit, services: Services) -> None:
    app = visit("CHAT", c="nothing")
    assert "There is no conversation nothing" in app.warning[0].value
    assert services.store.count_conversations(services.user_id) == 0


def test_versions_are_counted_and_reached(visit: Visit, services: Services, answered: str) -> None:
    app = visit("CHAT", c=answered)
    app.button(key="chat_regenerate").click().run()
    assert "2 / 2" in shown(app)
    answer = services.store.path(services.user_id, answered)[-1]
    app.button(key=f"previous_{answer.id}").click().run()
    assert "1 / 2" in shown(app)


def test_an_edited_question_that_is_refused_stays_in_its_box(
    visit: Visit, services: Services, answered: str
) -> None:
    question = services.store.path(services.user_id, answered)[0]
    app = visit("CHAT", c=answered)
    app.button(key=f"edit_{question.id}").click().run()
    app.text_area(key=f"edit_text_{question.id}").set_value(" ").run()
    app.button(key="edit_send").click().run()
    assert "empty" in app.error[0].value
    app.text_area(key=f"edit_text_{question.id}").set_value("in other words").run()
    app.button(key="edit_send").click().run()
    assert len(services.store.path(services.user_id, answered)) == 2
    assert "in other words" in app.chat_message[0].markdown[0].value


def test_a_very_long_message_is_shown_in_part(visit: Visit, services: Services) -> None:
    services.models.model.context_length = 3_000_000
    app = _ask(visit("CHAT"), "word " * 200_000)
    assert "The first 30,000 of 1,000,000 characters" in app.chat_message[0].markdown[0].value
    assert len(app.chat_message[0].markdown[0].value) < 40_000


def test_the_context_meter_warns_before_messages_are_left_out(
    visit: Visit, services: Services, answered: str
) -> None:
    app = visit("CHAT", c=answered)
    assert "of 1,000 tokens" in app.get("progress")[0].proto.text
    _ask(app, "word " * 480)
    assert "will be left out" in app.get("progress")[0].proto.text
    _ask(app, "and now")
    assert "had no room" in shown(app)


def test_an_answer_that_cannot_be_saved_says_so(
    visit: Visit, services: Services, answered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(updates: object) -> None:
        raise StoreFull(database="glm.sqlite3")

    app = visit("CHAT", c=answered)
    with monkeypatch.context() as broken:
        broken.setattr(services.store, "write_answers", full)
        _ask(app, "say 3 words every 400 ms")
        app.run()
        assert "not saved yet" in app.warning[0].value
        assert "w2" in app.chat_message[-1].markdown[0].value
    live = services.chat.live(answered)
    assert live is None or live.wait_saved(10)


def test_a_title_is_shown_as_it_was_typed(visit: Visit, services: Services, answered: str) -> None:
    services.store.rename(services.user_id, answered, "![x](http://e.example/a) *b*")
    app = visit("CHAT", c=answered)
    assert app.subheader[0].value.startswith("\\!\\[x\\]\\(")


def test_a_stored_setting_out_of_range_is_said_at_the_question(
    visit: Visit, services: Services
) -> None:
    services.store.set_user_settings(services.user_id, {"temperature": 99})
    app = _ask(visit("CHAT"), "hello")
    assert "temperature" in app.error[0].value
