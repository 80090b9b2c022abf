"""Finding conversations by words, dates and models."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glm_backend.errors import InvalidParameter, UnknownUser
from glm_backend.store import (
    AnswerUpdate,
    ConversationFilter,
    ConversationRow,
    Everybody,
    FoundConversations,
    ImportedConversation,
    ImportedMessage,
    Store,
    highlights,
)
from glm_backend.store.conversations import new_id
from glm_backend.store.tokens import query_tokens
from glm_backend.store.values import Role
from tests.store.talk import ANSWER, Clock, ask, finished
from tests.store.test_tokens import TEXT, holds

_storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANY_TEXT = TEXT | st.text(_storable, max_size=12)


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
        ("is what", {"percent", "same"}),
        ("what select", set()),
        ("hat", set()),
        ("气怎么", {"weather"}),
        ("怎样", set()),
        ("ＳＱＬ", {"code"}),
        ("*", set()),
        ('"', {"weather", "percent", "code", "same"}),
        ('"what is"', {"percent", "same"}),
        ('"is what"', set()),
        ('"What is 10"', set()),
        ("“is 100%” OF", {"percent"}),
        ("「今天天气」", {"weather"}),
        ('reads "rows."', {"code"}),
        ("a OR b NOT c", set()),
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


def test_a_phrase_stands_in_one_text_and_is_marked_where_it_stands(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id, title="How to bake")
    ask(store, user_id, conversation.id, "bake? how do I", "So\nhow do I  bake it")
    stranger = store.ensure_user("stranger")
    ask(store, stranger, store.create_conversation(stranger).id, "how do I bake")

    def found(text: str) -> list[ConversationRow]:
        by_text = ConversationFilter(text=text)
        both = store.find_conversations(user_id, limit=9, filter=by_text)
        assert both.count == len(both.rows) == store.count_conversations(user_id, by_text)
        assert len(store.select_conversations(user_id, filter=by_text)) == both.count
        return both.rows

    (row,) = found('"how do I bake"')
    assert row.hit_id == store.path(user_id, conversation.id)[1].id
    assert row.preview == "So how do I bake it"
    assert found('"bake how"') == []
    assert found('"to bake" "do I"') == []  # the one in the title, the other in messages
    assert [row.hit_id for row in found('"to bake"')] == [None]


def test_words_are_found_in_titles_and_in_branches_that_are_not_shown(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id, title="量子力学 Notes")
    question, _ = ask(store, user_id, conversation.id, "q", "an OLD answer")
    store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me")
    for text in ("子", "notes", "old"):
        assert store.count_conversations(user_id, ConversationFilter(text=text)) == 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(title=ANY_TEXT, texts=st.tuples(ANY_TEXT, ANY_TEXT), query=ANY_TEXT)
@example(title="", texts=("a\u180eb", ""), query="a\u180eb")
@example(title="", texts=("\u180e", ""), query="\u180e")
def test_any_query_finds_what_it_promises_to_find(
    store: Store, user_id: str, title: str, texts: tuple[str, str], query: str
) -> None:
    now = store.now()
    roles: tuple[Role, ...] = ("user", "assistant")
    messages = [
        ImportedMessage(
            id=new_id(now),
            parent_id=None,
            role=role,
            content=text,
            status="complete",
            created_at=now,
        )
        for role, text in zip(roles, texts, strict=True)
    ]
    given_id = new_id(now)
    made = ImportedConversation(given_id, title, now, now, messages)
    (outcome,) = store.import_conversations(user_id, [made])
    assert outcome.state == "imported"
    found = store.select_conversations(user_id, [given_id], ConversationFilter(text=query))
    expected = not any(query_tokens(query)) or any(holds(text, query) for text in (title, *texts))
    assert found == [given_id] * expected


def test_a_row_that_was_found_shows_where(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id, title="Notes on rain")
    ask(store, user_id, conversation.id, "w " * 200 + "今天天气怎么样 " + "w " * 200, "rain")

    def found(text: str) -> ConversationRow:
        (row,) = store.list_conversations(user_id, limit=9, filter=ConversationFilter(text=text))
        return row

    question, answer = store.path(user_id, conversation.id)
    row = found("天气")
    assert row.hit_id == question.id
    assert [row.preview[a:b] for a, b in highlights(row.preview, "天气")] == ["天气"]
    assert found("rain").hit_id == answer.id
    assert (found("notes").hit_id, found("notes").preview) == (None, "rain")


def test_titles_and_answers_are_found_as_they_are_now(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id, title="before")
    _, answer = store.begin_turn(user_id, conversation.id, None, "q", ANSWER, "me")
    store.write_answers([AnswerUpdate(answer.id, "growing")])
    store.rename(user_id, conversation.id, "after")

    def count(text: str) -> int:
        return store.count_conversations(user_id, ConversationFilter(text=text))

    assert (count("before"), count("after"), count("growing")) == (0, 1, 0)
    store.write_answers([finished(answer, "grown")])
    store.write_answers([finished(answer, "fully ripe")])
    assert (count("growing"), count("grown"), count("ripe")) == (0, 0, 1)


def test_a_word_far_into_a_very_long_text_is_found(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    varied = " ".join(f"{n:x}" for n in range(300_000))
    ask(store, user_id, conversation.id, f"{varied} 尾声在此", "a")
    for text in ("尾声在此", "493df", "在", "1a2 尾声", "尾 493df 1a2"):
        assert store.count_conversations(user_id, ConversationFilter(text=text)) == 1


def test_words_are_found_together_in_one_message_however_long_and_in_no_two(
    store: Store, user_id: str
) -> None:
    def count(text: str) -> int:
        return store.count_conversations(user_id, ConversationFilter(text=text))

    conversation = store.create_conversation(user_id)
    for begins, ends in (("zebra", "尾声"), ("yak", "finale")):
        long = " ".join([begins, *(f"{n:x}" for n in range(100_000)), ends])
        ask(store, user_id, conversation.id, long, "a")
    assert [count(text) for text in ("zebra 尾声", "zeb 18600 声", "yak final")] == [1, 1, 1]
    assert [count(text) for text in ("zebra finale", "yak 尾声", "zebra absent")] == [0, 0, 0]


def test_answers_are_filtered_by_precision_status_and_rating(store: Store, user_id: str) -> None:
    names = {}
    for name, quantization, status in (
        ("good", "int4", "complete"),
        ("failed", "int4", "failed"),
        ("stopped", "int8", "stopped"),
    ):
        conversation = store.create_conversation(user_id, title=name).id
        names[conversation] = name
        parameters = replace(ANSWER, quantization=quantization)
        _, answer = store.begin_turn(user_id, conversation, None, "q", parameters, "me")
        store.write_answers([replace(finished(answer, "a"), status=status)])
        if name == "good":
            store.rate(user_id, conversation, answer.id, 1)

    def found(**filter: Any) -> set[str]:
        by = ConversationFilter(**filter)
        rows = store.list_conversations(user_id, limit=9, filter=by)
        assert store.count_conversations(user_id, by) == len(rows)
        assert store.find_conversations(user_id, limit=9, filter=by) == FoundConversations(
            rows, len(rows)
        )
        return {names[row.id] for row in rows}

    assert found(quantization="int4") == {"good", "failed"}
    assert found(status="stopped") == {"stopped"}
    assert found(status="complete") == {"good"}
    assert found(rating=1) == {"good"}
    assert found(quantization="int4", status="failed", model=ANSWER.model) == {"failed"}
    assert found(quantization="int8", status="failed") == set()


def test_who_may_reads_everybody_s_and_filters_by_user(store: Store, user_id: str) -> None:
    other = store.ensure_user("李")
    for user, title in ((user_id, "mine"), (other, "theirs")):
        conversation = store.create_conversation(user, title=title)
        ask(store, user, conversation.id, "secret words")
    everybody = Everybody.EVERYBODY
    rows = store.list_conversations(everybody, limit=9, filter=ConversationFilter(text="secret"))
    assert [(row.user, row.title) for row in rows] == [("李", "theirs"), ("local", "mine")]
    theirs = ConversationFilter(user="李")
    assert store.count_conversations(everybody, theirs) == 1
    assert store.count_conversations(user_id, theirs) == 0
    assert len(store.select_conversations(everybody)) == 2
    assert store.count_conversations("everybody") == 0
    assert store.user_names() == ["local", "李"]
    assert store.user_named("李") == other
    with pytest.raises(UnknownUser, match="nobody"):
        store.user_named("nobody")


def test_a_row_tells_what_is_in_the_conversation(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    question, _ = ask(store, user_id, conversation.id, "A question", "one")
    other = replace(ANSWER, model="smollm2-135m", quantization="none")
    answer = store.begin_answer(user_id, conversation.id, question.id, other, "me")
    store.write_answers([finished(answer, "two")])
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
    for offset, page in zip((0, 10, 20, 30), [*pages, []], strict=True):
        found = store.find_conversations(user_id, limit=10, offset=offset)
        assert (found.rows, found.count) == (page, 25)
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
