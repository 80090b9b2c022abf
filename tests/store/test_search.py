"""Finding conversations by words, dates and models."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from glm_backend.errors import InvalidParameter
from glm_backend.store import ConversationFilter, Store
from tests.store.talk import ANSWER, Clock, ask


@pytest.fixture
def titles(store: Store, user_id: str) -> Iterator[dict[str, str]]:
    """Four conversations: the name that a test uses for each, by id."""
    talks = {
        "weather": ("今天天气怎么样？", "Sunny, 25 degrees."),
        "percent": ("What is 100% of a_b?", "Back\\slash"),
        "code": ("Explain SELECT in SQL", "It reads ROWS."),
        "same": ("What is 1000 of axb?", "数据库"),
    }
    ids = {}
    for name, (question, answer) in talks.items():
        conversation = store.create_conversation(user_id)
        ask(store, user_id, conversation.id, question, answer)
        ids[conversation.id] = name
    yield ids


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("天", {"weather"}),
        ("天气", {"weather"}),
        ("据", {"same"}),
        ("sunny", {"weather"}),
        ("select", {"code"}),
        ("rows", {"code"}),
        ("100%", {"percent"}),
        ("a_b", {"percent"}),
        ("\\", {"percent"}),
        ("what is", {"percent", "same"}),
        ("'; DROP TABLE messages; --", set()),
        ("", {"weather", "percent", "code", "same"}),
    ],
)
def test_words_are_found_in_questions_and_answers(
    store: Store, user_id: str, titles: dict[str, str], text: str, found: set[str]
) -> None:
    by_text = ConversationFilter(text=text)
    rows = store.list_conversations(user_id, limit=10, filter=by_text)
    assert {titles[row.id] for row in rows} == found
    assert store.count_conversations(user_id, by_text) == len(found)


def test_words_are_found_in_titles_and_in_branches_that_are_not_shown(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id, title="量子力学 Notes")
    question, _ = ask(store, user_id, conversation.id, "q", "an OLD answer")
    store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me")
    for text in ("子", "notes", "old"):
        assert store.count_conversations(user_id, ConversationFilter(text=text)) == 1


def test_a_row_tells_what_is_in_the_conversation(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    question, _ = ask(store, user_id, conversation.id, "A question", "one")
    other = replace(ANSWER, model="smollm2-135m", quantization="none")
    answer = store.begin_answer(user_id, conversation.id, question.id, other, "me")
    ask(
        store,
        user_id,
        conversation.id,
        "more",
        "Line one\n\n  line   two " + "x" * 500,
        after=answer,
    )
    (row,) = store.list_conversations(user_id, limit=10)
    assert row.title == "A question"
    assert row.message_count == 5
    assert row.models == ("chatglm3-6b", "smollm2-135m")
    assert row.quantizations == ("int4", "none")
    assert row.preview.startswith("Line one line two xxx")
    assert len(row.preview) <= 160
    assert row.created_at == conversation.created_at
    assert row.updated_at > row.created_at
    assert store.models_used(user_id) == ["chatglm3-6b", "smollm2-135m"]


def test_the_latest_change_comes_first_page_by_page(store: Store, user_id: str) -> None:
    ids = [store.create_conversation(user_id).id for _ in range(25)]
    ask(store, user_id, ids[3])
    expected = [ids[3], *(i for i in reversed(ids) if i != ids[3])]
    pages = [store.list_conversations(user_id, limit=10, offset=offset) for offset in (0, 10, 20)]
    assert [row.id for page in pages for row in page] == expected
    assert [len(page) for page in pages] == [10, 10, 5]
    assert store.list_conversations(user_id, limit=10, offset=30) == []
    assert store.count_conversations(user_id) == 25
    empty = next(row for row in pages[2] if row.id == ids[0])
    assert (empty.message_count, empty.models, empty.preview) == (0, (), "")


def test_dates_take_in_what_was_going_on_then(store: Store, user_id: str, clock: Clock) -> None:
    names = {}
    for name in ("monday", "tuesday"):
        names[store.create_conversation(user_id, title=name).id] = name
        clock.time += timedelta(days=1)
    wednesday = clock.time

    def found(since: datetime | None = None, until: datetime | None = None) -> set[str]:
        by_date = ConversationFilter(since=since, until=until)
        return {names[r.id] for r in store.list_conversations(user_id, limit=9, filter=by_date)}

    day = timedelta(days=1)
    assert found(since=wednesday - day) == {"tuesday"}
    assert found(until=wednesday - day) == {"monday"}
    assert found(since=wednesday - 3 * day, until=wednesday) == {"monday", "tuesday"}
    assert found(since=wednesday) == set()
    with pytest.raises(InvalidParameter, match="zone"):
        found(since=wednesday.replace(tzinfo=None))


def test_a_model_is_a_filter_and_filters_add_up(store: Store, user_id: str) -> None:
    for text in ("apples", "pears"):
        for model in ("one", "two"):
            conversation = store.create_conversation(user_id)
            answer = replace(ANSWER, model=model)
            ask(store, user_id, conversation.id, text, answer=answer)
    assert store.count_conversations(user_id, ConversationFilter(model="one")) == 2
    assert store.count_conversations(user_id, ConversationFilter(model="one", text="pear")) == 1
    assert store.count_conversations(user_id, ConversationFilter(model="three")) == 0


def test_nobody_finds_what_is_not_theirs(store: Store, user_id: str) -> None:
    ask(store, user_id, store.create_conversation(user_id).id, "secret")
    stranger = store.ensure_user("stranger")
    assert store.list_conversations(stranger, limit=10) == []
    assert store.count_conversations(stranger, ConversationFilter(text="secret")) == 0
    assert store.models_used(stranger) == []
