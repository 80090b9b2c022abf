"""The chat page's logic; what needs a browser is in tests/browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.chat import ChatService
from glm_backend.errors import StoreFull
from glm_backend.models.manager import ModelRequest, ModelStatus
from glm_backend.services import Services
from glm_backend.store import ConversationFilter, Store
from tests.fakes import FakeModels
from tests.postgres import PostgresServer
from tests.ui.conftest import shown
from ui import messages
from ui.chat_view import read_chat
from ui.messages import waiting_text

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
    for trash in (False, True):
        kept = ConversationFilter(trash=trash)
        assert services.store.count_conversations(services.user_id, kept) == 0


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


def test_while_the_model_loads_the_page_says_that_it_is_on_its_way(
    visit: Visit, services: Services
) -> None:
    models = cast(FakeModels, services.models)
    models.present = ModelStatus(state="loading", request=ModelRequest("m"), stage="reading")
    app = _ask(visit("CHAT"), "hello there")
    assert "The model is still being loaded" in app.error[0].value
    assert app.chat_input(key="chat_input").proto.value == "hello there"
    assert services.store.count_conversations(services.user_id) == 0


def test_what_is_refused_again_is_told_to_the_browser_otherwise_and_sent_as_written(
    visit: Visit, services: Services
) -> None:
    services.models.unload()
    app, told = visit("CHAT"), "hello there"
    for expected in ("hello there", "hello there ", "hello there"):
        app = _ask(app, told)
        told = app.chat_input(key="chat_input").proto.value
        assert told == expected
    _ask(app, told)
    services.models.load(ModelRequest("m"))
    told = app.chat_input(key="chat_input").proto.value
    assert told == "hello there "
    app = _ask(app, told)
    conversation = services.store.list_conversations(services.user_id, limit=1)[0]
    assert services.store.path(services.user_id, conversation.id)[0].content == "hello there"


def test_a_space_that_was_written_is_sent_after_a_refusal(visit: Visit, services: Services) -> None:
    services.models.unload()
    app = _ask(visit("CHAT"), "hello there ")
    services.models.load(ModelRequest("m"))
    _ask(app, app.chat_input(key="chat_input").proto.value)
    conversation = services.store.list_conversations(services.user_id, limit=1)[0]
    assert services.store.path(services.user_id, conversation.id)[0].content == "hello there "


def test_a_refusal_is_in_the_readers_language(visit: Visit, services: Services) -> None:
    services.models.unload()
    app = _ask(visit("CHAT", language="zh"), "你好")
    assert "尚未加载模型" in app.error[0].value


@pytest.mark.parametrize(("language", "said"), [("en", "Number 3 in line"), ("zh", "排在第 3 位")])
def test_whoever_waits_sees_the_place_in_line(
    visit: Visit, services: Services, monkeypatch: pytest.MonkeyPatch, language: str, said: str
) -> None:
    model = services.models.model  # type: ignore[attr-defined]
    model.place, drawn = 3, []
    monkeypatch.setattr(messages, "waiting_text", lambda n: drawn.append(waiting_text(n)) or "")
    app = _ask(visit("CHAT", language=language), "say 3 words after 400 ms")
    assert any(said in text for text in drawn)
    assert "w0 w1 w2" in app.chat_message[1].markdown[0].value


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


@pytest.mark.parametrize(
    ("family", "context", "shown_as"),
    [
        ("chatglm", 2048, "0 of 2,048 tokens"),
        ("chatglm3", 8192, "0 of 8,192 tokens"),
        ("chatglm2", 32_768, "0 of 8,192 tokens (maximum length in Settings; the model could take"),
        ("glm4", 32_768, "0 of 32,768 tokens"),
    ],
)
def test_a_new_chat_shows_how_much_the_family_can_take(
    visit: Visit, services: Services, family: str, context: int, shown_as: str
) -> None:
    fake = services.models.model  # type: ignore[attr-defined]
    fake.family, fake.context_length = family, context
    services.models.load(ModelRequest(family))
    assert shown_as in visit("CHAT").get("progress")[0].proto.text


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


def test_an_answer_that_was_cut_off_is_carried_on_as_another_version(
    visit: Visit, services: Services
) -> None:
    app = visit("CHAT")
    services.store.set_user_settings(services.user_id, {"max_new_tokens": 2})
    _ask(app, "say 6 words")
    assert "reached its maximum length" in shown(app)
    conversation = app.query_params["c"]
    answer = services.store.path(services.user_id, conversation)[-1]
    services.store.set_user_settings(services.user_id, {"max_new_tokens": 100})
    app.button(key=f"continue_{answer.id}").click().run()
    assert "2 / 2" in shown(app)
    carried_on = services.store.path(services.user_id, conversation)[-1]
    assert carried_on.content.startswith(answer.content)
    assert "w5" in app.chat_message[-1].markdown[0].value
    assert f"continue_{carried_on.id}" not in [button.key for button in app.button]


def test_a_conversation_branches_off_at_a_message_and_stays_as_it_is(
    visit: Visit, services: Services, answered: str
) -> None:
    app = _ask(visit("CHAT", c=answered), "more of it")
    answer = services.store.path(services.user_id, answered)[1]
    app.button(key=f"fork_{answer.id}").click().run()
    fork = app.query_params["c"]
    assert fork != answered
    assert len(app.chat_message) == 2
    assert "branched off from another conversation" in shown(app)
    assert len(services.store.path(services.user_id, answered)) == 4


def test_a_thumb_is_kept_at_once_and_a_note_with_it(
    visit: Visit, services: Services, answered: str
) -> None:
    app = visit("CHAT", c=answered)
    answer = services.store.path(services.user_id, answered)[-1]
    assert f"add_note_{answer.id}" not in [button.key for button in app.button]
    app.feedback(key=f"rating_{answer.id}").set_value(1).run()
    assert services.store.path(services.user_id, answered)[-1].rating == 1
    app.button(key=f"add_note_{answer.id}").click().run()
    app.text_area(key=f"note_{answer.id}").set_value("say `why` :tada:").run()
    app.button(key="note_keep").click().run()
    assert services.store.path(services.user_id, answered)[-1].comment == "say `why` :tada:"
    assert "say `why`" in shown(app)
    app.feedback(key=f"rating_{answer.id}").set_value(None).run()
    kept = services.store.path(services.user_id, answered)[-1]
    assert (kept.rating, kept.comment) == (None, "say `why` :tada:")


def test_archived_conversations_leave_the_list_beside_the_chat(
    visit: Visit, services: Services, answered: str
) -> None:
    app = visit("CHAT")
    assert "an old question" in [link.proto.label for link in app.get("page_link")]
    services.store.archive(services.user_id, [answered])
    app.run()
    assert "an old question" not in [link.proto.label for link in app.get("page_link")]


def test_while_the_database_is_away_the_answer_goes_on_in_sight_and_is_saved_after(
    postgres: PostgresServer, postgres_url: str, visit: Visit, services: Services
) -> None:
    services.store.close()
    store = Store.open(postgres_url)
    services.store, services.chat = store, ChatService(store, services.model)
    services.user_id = store.ensure_user("local")
    app = _ask(visit("CHAT"), "hello")
    conversation = app.query_params["c"]
    live = services.chat.send(services.user_id, conversation, "say 30 words every 100 ms")
    app.session_state["last_view"] = read_chat(services, conversation, last=30)
    postgres.kill()
    try:
        app.run()
        assert not app.exception
        assert "does not answer" in app.warning[0].value
        assert "w29" in app.chat_message[-1].markdown[0].value
        assert "not saved yet" in "\n".join(warning.value for warning in app.warning)
    finally:
        postgres.start()
    assert live.wait_saved(20)
    app.run()
    assert not app.warning
    assert "w29" in app.chat_message[-1].markdown[0].value


def test_a_conversation_that_ends_with_a_question_is_answered(
    visit: Visit, services: Services, answered: str
) -> None:
    """As a branch may, and what was imported."""
    question = services.store.path(services.user_id, answered)[0]
    fork = services.store.fork_conversation(services.user_id, answered, question.id)
    app = visit("CHAT", c=fork.id)
    assert len(app.chat_message) == 1
    app.button(key="chat_answer").click().run()
    assert not app.exception
    assert [m.role for m in services.store.path(services.user_id, fork.id)] == ["user", "assistant"]
    with pytest.raises(KeyError):
        app.button(key="chat_answer")


def test_an_answer_is_shown_as_it_was_written_to_be_copied(visit: Visit, answered: str) -> None:
    app = visit("CHAT", c=answered)
    (copy,) = [button for button in app.button if (button.key or "").startswith("copy_")]
    assert not app.code
    copy.click().run()
    assert app.code[0].value == "an old question"
    app.button(key=copy.key).click().run()
    assert not app.code


def test_a_conversation_has_a_system_prompt_of_its_own(
    visit: Visit, services: Services, answered: str
) -> None:
    services.store.set_user_settings(services.user_id, {"system_prompt": "Be kind."})
    app = visit("CHAT", c=answered)
    assert "system prompt of its own" not in shown(app)
    app.text_area(key=f"chat_prompt_{answered}").set_value("  Be brief.\x00 ")
    _submit(app, "Save")
    assert "system prompt of its own" in shown(app)
    _ask(app, "more")
    assert services.store.path(services.user_id, answered)[-1].system_prompt == "Be brief.␀"
    app.button(key="chat_prompt_clear").click().run()
    assert services.store.conversation(services.user_id, answered).settings == {}
    assert services.chat.parameters(services.user_id, answered).system_prompt == "Be kind."


def test_settings_that_came_with_a_conversation_can_be_let_go_of(
    visit: Visit, services: Services, answered: str
) -> None:
    services.store.set_conversation_settings(services.user_id, answered, {"temperature": 9})
    app = _ask(visit("CHAT", c=answered), "more")
    assert "temperature" in app.error[0].value
    assert "settings of its own: Temperature" in shown(app)
    app.button(key="chat_prompt_clear").click().run()
    _ask(app, "more")
    assert not app.error
    assert len(services.store.path(services.user_id, answered)) == 4


def _submit(app: AppTest, label: str) -> None:
    next(button for button in app.button if button.label == label).click().run()
    assert not app.exception


def test_a_title_is_changed_or_left_as_it_is(
    visit: Visit, services: Services, answered: str
) -> None:
    app = visit("CHAT", c=answered)
    for typed, label, title in (
        ("Other", "Cancel", "an old question"),
        ("Other", "Save", "Other"),
        ("Other", "Save", "Other"),  # unchanged, and the field goes all the same
    ):
        app.session_state["renaming"] = answered
        app.run()
        app.text_input(key=f"title_{answered}").set_value(typed)
        next(b for b in app.sidebar.button if b.label == label).click().run()
        assert not app.exception
        assert services.store.conversation(services.user_id, answered).title == title
        assert "renaming" not in app.session_state


def test_what_was_archived_in_the_list_comes_back(
    visit: Visit, services: Services, answered: str
) -> None:
    app = visit("CHAT", c=answered)
    app.session_state["put_away"] = ("archived", answered, "an old question")
    services.store.archive(services.user_id, [answered])
    app.run()
    assert "Archived: an old question" in shown(app)
    app.button(key="chat_undo").click().run()
    assert services.store.conversation(services.user_id, answered).archived_at is None
    assert "Archived" not in shown(app)


def test_an_answer_says_what_it_was_made_with(visit: Visit, services: Services) -> None:
    stored = {"temperature": 0.25, "top_k": 7, "system_prompt": "Be *brief*. " * 30}
    services.store.set_user_settings(services.user_id, stored)
    its_id = services.store.create_conversation(services.user_id).id
    services.chat.send(services.user_id, its_id, "one two").wait_saved(10)
    page = visit("CHAT", c=its_id)
    (told,) = [c.help for c in page.caption if "first token" in c.value]
    assert "Temperature: 0.25" in told
    assert "Top-k: 7" in told
    assert "Be \\*brief\\*\\." in told
    assert len(told) < 600
