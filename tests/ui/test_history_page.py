"""The history page: found, marked, changed, read; downloads and menus are in tests/browser."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.services import Services
from glm_backend.store import ConversationFilter, ImportedConversation, ImportedMessage
from glm_backend.store.conversations import new_id
from glm_backend.store.values import Role
from tests.ui.conftest import shown
from ui.history.changes import Change
from ui.history.filter import CURRENT
from ui.job import Job
from ui.usage import daily

Visit = Callable[..., AppTest]


def _ask(services: Services, question: str) -> str:
    conversation = services.store.create_conversation(services.user_id).id
    services.chat.send(services.user_id, conversation, question).wait_saved(10)
    return conversation


@pytest.fixture
def ids(services: Services) -> list[str]:
    """23 conversations, the oldest first."""
    return [_ask(services, f"question {i:02}") for i in range(23)]


@pytest.fixture
def page(visit: Visit, services: Services, ids: list[str]) -> AppTest:
    """Over the 23, and an archived one with a tag that can be chosen."""
    aside = services.store.create_conversation(services.user_id, title="aside").id
    services.store.tag(services.user_id, [aside], "报告")
    services.store.archive(services.user_id, [aside])
    return visit("HISTORY")


def _titles(page: AppTest) -> list[str]:
    links = [link.proto.label for link in page.get("page_link")]
    return [label.strip("*") for label in links if label.startswith("**")]


def _mark(page: AppTest, *ids: str) -> AppTest:
    for each in ids:
        page.checkbox(key=f"mark_{each}").check().run()
    assert not page.exception
    return page


def _on_shelf(page: AppTest, shelf: str) -> AppTest:
    page.session_state["history_shelf"] = shelf
    return page.run()


def _tag(page: AppTest, tag: str) -> AppTest:
    page.selectbox(key="history_tag_name").set_value(tag)
    return page.button(key="history_tag_them").click().run()


# --- finding


def test_the_newest_twenty_are_on_the_first_page(page: AppTest) -> None:
    assert _titles(page)[:2] == ["question 22", "question 21"]
    assert len(_titles(page)) == 20
    assert "2 messages · fake" in shown(page)
    assert "all 23 that were found" in shown(page)


def test_what_is_searched_for_is_marked_in_what_is_found(page: AppTest) -> None:
    page.text_input(key="history_search").set_value("question 1").run()
    assert len(_titles(page)) == 10
    assert _titles(page)[0] == ":yellow-background[question] :yellow-background[1]9"
    page.text_input(key="history_search").set_value("no such words").run()
    assert "Nothing was found" in page.info[0].value
    assert "None marked" not in shown(page)
    assert page.button(key="history_delete").disabled


def test_one_chinese_character_is_enough(page: AppTest, services: Services) -> None:
    _ask(services, "季度报告怎么写")
    page.text_input(key="history_search").set_value("报").run()
    assert _titles(page) == ["季度:yellow-background[报]告怎么写"]


def test_what_people_wrote_stays_text_beside_the_marks(page: AppTest, services: Services) -> None:
    its_id = _ask(services, "hostile")
    title = "![pixel](http://leak.example/a) <b>hostile</b>:tada: :red[x]"
    services.store.rename(services.user_id, its_id, title)
    page.text_input(key="history_search").set_value("hostile").run()
    label = _titles(page)[0]
    assert label.count(":yellow-background[hostile]") == 1
    rest = label.replace(":yellow-background[hostile]", "")
    assert "\\!\\[pixel\\]\\(" in rest
    assert ":tada:" not in rest
    assert ":red[" not in rest


def test_days_and_what_answers_are_like_narrow_the_list(page: AppTest, services: Services) -> None:
    today = datetime.now(UTC).date()
    page.date_input(key="history_days").set_value((today, today)).run()
    assert "all 23" in shown(page)
    long_ago = today - timedelta(days=90)
    page.date_input(key="history_days").set_value((long_ago, long_ago)).run()
    assert "Nothing was found" in page.info[0].value
    page.button(key="history_clear").click().run()
    page.selectbox(key="history_model").set_value("fake").run()
    page.selectbox(key="history_status").set_value("complete").run()
    page.selectbox(key="history_quantization").set_value("none").run()
    assert "all 23" in shown(page)
    page.selectbox(key="history_status").set_value("failed").run()
    assert "Nothing was found" in page.info[0].value
    page.button(key="history_clear").click().run()
    assert "all 23" in shown(page)


def test_a_filter_says_in_the_readers_language_that_it_is_not_set(
    visit: Visit, answered: str
) -> None:
    page = visit("HISTORY", language="zh")
    fields = [page.selectbox(key=f"history_{name}") for name in ("model", "status", "tag")]
    assert {field.placeholder for field in fields} == {"不限"}


def test_rated_answers_are_found_by_their_rating(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    answer = services.store.path(services.user_id, ids[7])[-1]
    services.chat.rate(services.user_id, ids[7], answer.id, -1)
    page.selectbox(key="history_rating").set_value(-1).run()
    assert _titles(page) == ["question 07"]


def test_one_that_is_read_gets_another_title_or_keeps_its_own(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    page.query_params["c"] = ids[12]
    page.run()
    page.button(key="reader_rename").click().run()
    page.text_input(key=f"title_{ids[12]}").set_value(" ")
    next(b for b in page.button if b.label == "Save").click().run()
    assert page.error[0].value == "Give a title of 1 to 200 characters\\."
    for button, title in (("Cancel", "question 12"), ("Save", "Budget")):
        page.button(key="reader_rename").click().run()
        page.text_input(key=f"title_{ids[12]}").set_value("Budget")
        next(b for b in page.button if b.label == button).click().run()
        assert page.subheader[0].value == title
        assert not [box for box in page.text_input if box.key == f"title_{ids[12]}"]
    assert services.store.conversation(services.user_id, ids[12]).title == "Budget"


def test_the_filters_are_still_set_after_reading_one(page: AppTest, ids: list[str]) -> None:
    page.text_input(key="history_search").set_value("question 1").run()
    page.query_params["c"] = ids[12]
    page.run()
    assert "question 12" in page.subheader[0].value
    del page.query_params["c"]
    page.run()
    assert page.text_input(key="history_search").value == "question 1"
    assert len(_titles(page)) == 10


def _turned_to(number: int, visit: Visit, services: Services) -> AppTest:
    """A page of the list of 45 conversations, of which 23 begin with "a" and 22 with "b"."""
    for i in range(45):
        services.store.create_conversation(services.user_id, title=f"{'ab'[i % 2]} {i:02}")
    page = visit("HISTORY")
    page.session_state["history_page"] = number
    page.run()
    return page


def test_a_shorter_list_is_shown_from_a_page_that_it_has(visit: Visit, services: Services) -> None:
    page = _turned_to(3, visit, services)
    assert len(_titles(page)) == 5
    rows = services.store.list_conversations(services.user_id, limit=10)
    services.store.delete(services.user_id, [row.id for row in rows])
    page.run()
    assert not page.exception
    assert len(_titles(page)) == 15


def test_another_search_begins_at_its_first_page(visit: Visit, services: Services) -> None:
    page = _turned_to(2, visit, services)
    page.text_input(key="history_search").set_value("a ").run()
    assert not page.exception
    assert page.session_state["history_page"] == 1
    assert len(_titles(page)) == 20


def test_an_empty_history_shows_the_way_to_a_chat_and_to_an_import(visit: Visit) -> None:
    app = visit("HISTORY", language="zh")
    assert "还没有对话" in app.info[0].value
    assert len(app.file_uploader) == 1


# --- marking and changing


def test_marks_stay_on_other_pages_and_go_with_another_filter(
    page: AppTest, ids: list[str]
) -> None:
    _mark(page, ids[22], ids[21])
    page.session_state["history_page"] = 2
    page.run()
    _mark(page, ids[0])
    assert "3 marked" in shown(page)
    page.text_input(key="history_search").set_value("question").run()
    assert "all 23" in shown(page)


def test_the_mark_of_the_page_takes_all_of_it_and_gives_it_back(page: AppTest) -> None:
    page.checkbox(key="history_mark_page").check().run()
    assert "20 marked" in shown(page)
    page.checkbox(key="history_mark_page").uncheck().run()
    assert "None marked" in shown(page)


def test_a_tag_is_given_to_the_marked_and_taken_back(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    _tag(_mark(page, ids[3], ids[5]), "报告")
    assert "2 tagged “报告”" in shown(page)
    assert "2 messages · fake] :green-badge[报告]" in shown(page)
    tagged = ConversationFilter(tag="报告", archived=False)
    assert services.store.count_conversations(services.user_id, tagged) == 2
    page.button(key="history_undo").click().run()
    assert services.store.count_conversations(services.user_id, tagged) == 0
    page.button(key="history_undo").click().run()
    assert services.store.count_conversations(services.user_id, tagged) == 2


def test_a_change_that_is_refused_says_why_and_what_it_did_can_be_undone(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    change = Change("tag", "x" * 51)
    job = Job(lambda report: change.carry_out(services, ids, report))
    page.session_state["history_changed"] = (change, job, ())
    page.run()
    assert "a tag of 1 to 50 characters" in page.error[0].value
    assert "0 tagged" in shown(page)
    assert "history_undo" not in [button.key for button in page.button]


def test_everything_that_is_found_is_changed_where_nothing_is_marked_if_that_is_meant(
    page: AppTest, services: Services
) -> None:
    page.text_input(key="history_search").set_value("question 1").run()
    tagged = ConversationFilter(tag="报告", archived=False)
    for answer, count in (("no", 0), ("yes", 10)):
        _tag(page, "报告")
        assert "Give the tag “报告” to all 10 conversations that were found?" in shown(page)
        assert services.store.count_conversations(services.user_id, tagged) == 0
        page.button(key=f"history_tag_{answer}").click().run()
        assert services.store.count_conversations(services.user_id, tagged) == count


def test_marks_stay_with_what_stays_in_the_list(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    services.store.tag(services.user_id, [ids[0]], "urgent")
    _tag(_mark(page, ids[3], ids[5]), "报告")
    assert "2 marked" in shown(page)
    _tag(page, "urgent")
    assert "2 tagged “urgent”" in shown(page)
    page.button(key="history_delete").click().run()
    page.button(key="history_delete_yes").click().run()
    assert "None marked" in shown(page)
    assert services.store.count_conversations(services.user_id) == 22


@pytest.mark.parametrize(
    ("kind", "filter", "gone"),
    [
        ("pin", CURRENT, False),
        ("archive", CURRENT, True),
        ("archive", ConversationFilter(), False),
        ("unpin", ConversationFilter(pinned=True), True),
        ("untag", ConversationFilter(tag="报告"), True),
        ("untag", ConversationFilter(tag="other"), False),
        ("delete", ConversationFilter(), True),
        ("restore", ConversationFilter(trash=True), True),
    ],
)
def test_a_change_takes_out_of_a_list_what_is_no_longer_found_there(
    kind: str, filter: ConversationFilter, gone: bool
) -> None:
    assert Change(kind, "报告").takes_out_of(filter) == gone


def test_deleting_asks_first_says_how_long_it_stays_and_can_be_undone(
    page: AppTest, services: Services
) -> None:
    page.text_input(key="history_search").set_value("question 1").run()
    page.button(key="history_delete").click().run()
    assert "Delete 10 conversations? They stay in the trash for 30 days." in shown(page)
    page.button(key="history_delete_yes").click().run()
    assert services.store.count_conversations(services.user_id) == 14
    page.button(key="history_undo").click().run()
    assert services.store.count_conversations(services.user_id) == 24


def test_what_is_in_the_trash_is_restored_or_erased_for_good(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    services.store.delete(services.user_id, ids[:3])
    _on_shelf(page, "trash")
    assert "for 30 days is erased" in shown(page)
    _mark(page, ids[0])
    page.button(key="history_restore").click().run()
    assert services.store.conversation(services.user_id, ids[0])
    page.button(key="history_erase").click().run()
    assert "Erase 2 conversations for good" in shown(page)
    page.button(key="history_erase_no").click().run()
    assert services.store.count_conversations(services.user_id, ConversationFilter(trash=True)) == 2
    page.button(key="history_erase").click().run()
    page.button(key="history_erase_yes").click().run()
    assert services.store.count_conversations(services.user_id, ConversationFilter(trash=True)) == 0
    assert "2 erased for good" in shown(page)
    assert "history_undo" not in [button.key for button in page.button]


def test_pinned_and_archived_ones_have_shelves_of_their_own(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    services.store.pin(services.user_id, [ids[0]])
    services.store.archive(services.user_id, [ids[1]])
    page.run()
    assert _titles(page)[0] == "question 00"
    assert "all 22" in shown(page)
    assert _titles(_on_shelf(page, "pinned")) == ["question 00"]
    assert _titles(_on_shelf(page, "archived")) == ["aside", "question 01"]
    _on_shelf(page, "all")
    assert "all 24" in shown(page)


# --- reading


def test_one_is_read_in_all_its_versions(visit: Visit, services: Services, answered: str) -> None:
    first = services.store.path(services.user_id, answered)[-1]
    services.chat.regenerate(services.user_id, answered, first.id).wait_saved(10)
    second = services.store.path(services.user_id, answered)[-1]
    page = visit("HISTORY", c=answered)
    assert "2 / 2" in shown(page)
    page.button(key=f"previous_{second.id}").click().run()
    assert "1 / 2" in shown(page)
    assert services.store.path(services.user_id, answered)[-1].id == first.id


def test_a_hit_in_a_version_that_is_not_shown_can_be_brought_up(
    visit: Visit, services: Services, answered: str
) -> None:
    question, answer = services.store.path(services.user_id, answered)
    services.chat.edit(services.user_id, answered, question.id, "other words").wait_saved(10)
    page = visit("HISTORY", c=answered)
    page.query_params["m"] = answer.id
    page.run()
    assert "in a version that is not shown" in shown(page)
    page.button(key="show_hit").click().run()
    assert services.store.path(services.user_id, answered)[-1].id == answer.id
    assert "in a version that is not shown" not in shown(page)


def test_a_conversation_branches_off_at_any_message(
    visit: Visit, services: Services, answered: str
) -> None:
    services.chat.send(services.user_id, answered, "more").wait_saved(10)
    question = services.store.path(services.user_id, answered)[0]
    page = visit("HISTORY", c=answered)
    page.button(key=f"fork_{question.id}").click().run()
    fork = page.query_params["c"]
    assert fork != answered
    assert "branched off" in shown(page)
    assert [m.content for m in services.store.path(services.user_id, fork)] == ["an old question"]
    assert len(services.store.path(services.user_id, answered)) == 4


def test_it_is_rated_with_a_note_where_it_is_read(
    visit: Visit, services: Services, answered: str
) -> None:
    answer = services.store.path(services.user_id, answered)[-1]
    page = visit("HISTORY", c=answered)
    page.feedback(key=f"rating_{answer.id}").set_value(0).run()
    page.button(key=f"add_note_{answer.id}").click().run()
    page.text_area(key=f"note_{answer.id}").set_value("答非所问 *really*").run()
    page.button(key="note_keep").click().run()
    kept = services.store.path(services.user_id, answered)[-1]
    assert (kept.rating, kept.comment) == (-1, "答非所问 *really*")
    assert "答非所问" in shown(page)


def test_what_is_done_to_one_that_is_read_can_be_undone_there(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    page.query_params["c"] = ids[12]
    page.run()
    for button, said in (
        ("reader_pin", "1 pinned."),
        ("history_undo", "1 unpinned."),
        ("reader_archive", "1 archived."),
        ("history_undo", "1 taken out of the archive."),
    ):
        page.button(key=button).click().run()
        assert said in shown(page)
    page.query_params["c"] = ids[11]
    page.run()
    assert "1 taken out of the archive." not in shown(page)


def test_one_that_is_read_is_deleted_and_the_list_has_the_way_back(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    _mark(page, ids[22], ids[21])
    page.query_params["c"] = ids[22]
    page.run()
    page.button(key="reader_delete").click().run()
    assert "c" not in page.query_params
    assert "1 deleted." in shown(page)
    assert "1 marked" in shown(page)
    assert _titles(page)[0] == "question 21"
    page.button(key="history_undo").click().run()
    assert _titles(page)[0] == "question 22"


def test_a_link_to_no_conversation_says_so(visit: Visit) -> None:
    page = visit("HISTORY", c="nothing")
    assert "There is no conversation nothing" in page.warning[0].value


# --- usage


def test_usage_is_summed_and_shown_by_day_and_by_model(page: AppTest) -> None:
    page.session_state["history_view"] = "Usage"
    page.run()
    assert not page.exception
    assert page.metric[0].value == "23"
    assert page.metric[1].value == "23"
    assert len(page.get("vega_lite_chart")) + len(page.get("arrow_vega_lite_chart")) == 4
    assert list(page.dataframe[0].value["Model"]) == ["fake"]


def test_what_names_no_model_has_a_row_and_a_colour_so_that_the_sums_agree(
    page: AppTest, services: Services
) -> None:
    now = services.store.now()
    texts: list[tuple[Role, str]] = [("user", "q"), ("assistant", "a")]
    talk = [
        ImportedMessage(
            id=new_id(now),
            parent_id=None,
            role=role,
            content=content,
            status="complete",
            created_at=now,
        )
        for role, content in texts
    ]
    made = ImportedConversation(new_id(now), "t", now, now, talk)
    (outcome,) = services.store.import_conversations(services.user_id, [made])
    assert outcome.state == "imported"
    page.session_state["history_view"] = "Usage"
    page.run()
    table = page.dataframe[0].value
    assert list(table["Model"]) == ["fake", "imported or unknown"]
    assert page.metric[0].value == str(table["Questions"].sum()) == "24"
    assert page.metric[1].value == str(table["Answers"].sum()) == "24"
    by_day = services.store.usage(services.user_id, "day", "model")
    assert dict(daily(by_day).groupby("model")["answers"].sum()) == {
        "fake": 23,
        "imported or unknown": 1,
    }


def test_usage_without_a_question_says_so(visit: Visit) -> None:
    page = visit("HISTORY")
    page.session_state["history_view"] = "Usage"
    assert "Nothing was asked" in page.run().info[0].value


# --- everybody's, for who runs the machine


@pytest.fixture
def colleague(services: Services) -> str:
    """Another user, with one conversation that was answered."""
    user_id = services.store.ensure_user("colleague")
    conversation = services.store.create_conversation(user_id).id
    services.chat.send(user_id, conversation, "a colleague's question").wait_saved(10)
    return conversation


def test_others_are_neither_listed_nor_named_until_they_are_asked_for(
    visit: Visit, colleague: str, answered: str
) -> None:
    page = visit("HISTORY")
    assert _titles(page) == ["an old question"]
    page.selectbox(key="history_user").set_value("colleague").run()
    assert "a colleague's question" in shown(page)
    assert "colleague · " in shown(page)
    assert _titles(page) == []  # no link: it is not read here
    assert "changed by those who have them" in shown(page)
    assert "history_delete" not in [button.key for button in page.button]


def test_usage_of_everybody_is_shown_by_user(visit: Visit, colleague: str, answered: str) -> None:
    page = visit("HISTORY")
    page.session_state["history_view"] = "Usage"
    page.run()
    assert page.metric[0].value == "1"
    page.toggle(key="usage_everybody").set_value(True).run()
    assert page.metric[0].value == "2"
    assert list(page.dataframe[1].value["Whose"]) == ["colleague", "local"]


def test_without_others_nobody_is_asked_whose(page: AppTest) -> None:
    assert "history_user" not in [box.key for box in page.selectbox]


def test_what_is_asked_about_is_what_was_there_then(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    page.text_input(key="history_search").set_value("question 0").run()
    page.button(key="history_delete").click().run()
    assert "10 conversations" in shown(page)
    late = _ask(services, "question 0, asked meanwhile")
    page.button(key="history_delete_yes").click().run()
    assert "10 deleted" in shown(page)
    assert services.store.conversation(services.user_id, late).id == late


def test_marks_of_what_is_gone_are_gone(page: AppTest, services: Services, ids: list[str]) -> None:
    _mark(page, ids[20], ids[21], ids[22])
    services.store.delete(services.user_id, [ids[21]])
    services.store.archive(services.user_id, [ids[22]])
    page.run()
    assert "1 marked" in shown(page)


def test_a_tag_that_another_tab_gave_stays(
    page: AppTest, services: Services, ids: list[str]
) -> None:
    page.query_params["c"] = ids[12]
    page.run()
    services.store.tag(services.user_id, [ids[12]], "theirs")
    page.run()
    box = page.multiselect(key=f"tags_{ids[12]}")
    assert box.value == ["theirs"]
    box.set_value(["theirs", "mine"]).run()
    assert services.store.conversation(services.user_id, ids[12]).tags == ("mine", "theirs")
