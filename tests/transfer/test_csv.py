"""The CSV export, read by the two readers that people use."""

import csv
import io
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_backend.errors import UnknownConversation
from glm_backend.store import AnswerUpdate, ConversationFilter, Store
from glm_backend.transfer import Selection, export
from glm_backend.transfer.records import CSV_COLUMNS
from tests.store.talk import ANSWER, ask

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)


def _read(chunks: Iterator[bytes]) -> list[dict[str, str]]:
    text = b"".join(chunks).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def _read_pandas(chunks: Iterator[bytes]) -> list[dict[str, str]]:
    file = io.BytesIO(b"".join(chunks))
    return pd.read_csv(file, keep_default_na=False, dtype=str).to_dict("records")


def _safe(text: str) -> str:
    return "'" + text if text.lstrip(" ")[:1] in set("=+-@\t\r") else text


def test_one_row_a_message_with_everything_known_of_it(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id, title='A, "quoted" title')
    question, answer = ask(store, user_id, conversation.id, "你好\r\n再见", 'Hello, "you"\n')
    rows = _read(export(store, user_id, "csv"))
    assert list(rows[0]) == list(CSV_COLUMNS)
    shared = {
        "conversation_id": conversation.id,
        "conversation_title": 'A, "quoted" title',
        "user": "local",
        "turn": "1",
        "branch": "1",
        "status": "complete",
    }
    nothing = dict.fromkeys(CSV_COLUMNS, "")
    assert rows == [
        {
            **nothing,
            **shared,
            "message_id": question.id,
            "role": "user",
            "content": "你好\r\n再见",
            "created_at": "2026-11-24T01:50:03.123456Z",
        },
        {
            **nothing,
            **shared,
            "message_id": answer.id,
            "parent_id": question.id,
            "role": "assistant",
            "content": 'Hello, "you"\n',
            "model": "chatglm3-6b",
            "quantization": "int4",
            "temperature": "0.8",
            "top_p": "0.9",
            "top_k": "40",
            "repetition_penalty": "1.05",
            "max_new_tokens": "256",
            "seed": "9223372036854775807",
            "system_prompt": "You are kind.",
            "prompt_tokens": "12",
            "completion_tokens": "34",
            "ttft_ms": "56.5",
            "duration_ms": "789.25",
            "tokens_per_s": "45.125",
            "finish_reason": "stop",
            "created_at": "2026-11-24T01:50:04.123456Z",
        },
    ]


def test_lines_end_as_the_standard_says_and_a_mark_comes_on_request(
    store: Store, user_id: str
) -> None:
    assert list(export(store, user_id, "csv")) == [",".join(CSV_COLUMNS).encode() + b"\r\n"]
    assert b"".join(export(store, user_id, "csv", bom=True)).startswith(
        b"\xef\xbb\xbfconversation_id"
    )


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ('=HYPERLINK("http://x";"y")', '\'=HYPERLINK("http://x";"y")'),
        ("  =cmd|' /C calc'!A0", "'  =cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1 degrees", "'-1 degrees"),
        ("- a list", "'- a list"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("1-1", "1-1"),
        ("'=1", "''=1"),
        ("你好=1", "你好=1"),
    ],
)
def test_no_text_is_taken_for_a_formula(store: Store, user_id: str, text: str, cell: str) -> None:
    conversation = store.create_conversation(user_id)
    ask(store, user_id, conversation.id, text, text)
    for row in _read(export(store, user_id, "csv")):
        assert row["content"] == cell
    titled = store.create_conversation(user_id, title=f"= {text.strip()}")
    ask(store, user_id, titled.id)
    assert _read(export(store, user_id, "csv", Selection([titled.id])))[0][
        "conversation_title"
    ].startswith("'=")


def test_a_negative_number_stays_a_number(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    _, answer = store.begin_turn(user_id, conversation.id, None, "q", ANSWER, "me")
    store.write_answers([AnswerUpdate(answer.id, "a", ttft_ms=-0.5)])
    assert _read(export(store, user_id, "csv"))[1]["ttft_ms"] == "-0.5"


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(question=TEXT, answer=TEXT)
def test_any_text_comes_back_from_both_readers(
    store: Store, user_id: str, question: str, answer: str
) -> None:
    conversation = store.create_conversation(user_id, title="t")
    ask(store, user_id, conversation.id, question, answer)
    for read in (_read, _read_pandas):
        for bom in (False, True):
            rows = read(export(store, user_id, "csv", Selection([conversation.id]), bom=bom))
            assert [row["content"] for row in rows] == [_safe(question), _safe(answer)]


def test_an_answer_that_is_being_written_is_exported_as_far_as_it_is(
    store: Store, user_id: str
) -> None:
    conversation = store.create_conversation(user_id)
    _, answer = store.begin_turn(user_id, conversation.id, None, "q", ANSWER, "me")
    store.write_answers([AnswerUpdate(answer.id, "so far")])
    row = _read(export(store, user_id, "csv"))[1]
    assert (row["status"], row["content"], row["completion_tokens"]) == ("generating", "so far", "")


def test_every_branch_is_exported_in_the_order_of_arrival(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)
    question, _ = ask(store, user_id, conversation.id, "one", "first")
    store.begin_answer(user_id, conversation.id, question.id, ANSWER, "me")
    ask(store, user_id, conversation.id, "uno", "primo")
    rows = _read(export(store, user_id, "csv"))
    assert [(r["turn"], r["branch"], r["content"]) for r in rows] == [
        ("1", "1", "one"),
        ("1", "1", "first"),
        ("1", "2", ""),
        ("1", "2", "uno"),
        ("1", "1", "primo"),
    ]


def test_a_selection_is_exported_in_order_of_age_and_only_ones_own(
    store: Store, user_id: str
) -> None:
    ids = [store.create_conversation(user_id).id for _ in range(3)]
    for n, conversation_id in enumerate(ids):
        ask(store, user_id, conversation_id, f"question {n}")
    rows = _read(export(store, user_id, "csv", Selection([ids[2], ids[0], ids[2]])))
    assert [r["content"] for r in rows if r["role"] == "user"] == ["question 0", "question 2"]
    by_text = ConversationFilter(text="question 1")
    rows = _read(export(store, user_id, "csv", Selection(filter=by_text)))
    assert {r["conversation_id"] for r in rows} == {ids[1]}
    assert _read(export(store, user_id, "csv", Selection(ids[:1], by_text))) == []
    store.delete(user_id, [ids[1]])
    for stranger, wanted in ((user_id, ids[1]), (user_id, "x"), (store.ensure_user("s"), ids[0])):
        with pytest.raises(UnknownConversation, match=wanted):
            export(store, stranger, "csv", Selection([wanted]))


def test_memory_does_not_grow_with_the_export(store: Store, user_id: str) -> None:
    conversation = store.create_conversation(user_id)

    def peak_of_export_after(answers: int) -> int:
        for _ in range(answers):
            ask(store, user_id, conversation.id, "q", "长" * 30_000)
        tracemalloc.start()
        try:
            assert sum(map(len, export(store, user_id, "csv"))) > answers * 90_000
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small = peak_of_export_after(100)
    assert peak_of_export_after(200) < 1.2 * small


def test_an_export_may_be_read_by_many_threads_in_turn_and_left_in_the_middle(
    store: Store, user_id: str
) -> None:
    for n in range(120):
        conversation = store.create_conversation(user_id)
        ask(store, user_id, conversation.id, f"q{n}", "a" * 10_000)
    chunks = export(store, user_id, "csv")
    read = []
    while True:
        with ThreadPoolExecutor(1) as pool:  # a web server takes any thread for the next chunk
            chunk = pool.submit(next, chunks, None).result()
        if chunk is None:
            break
        read.append(chunk)
    assert len(read) > 2
    assert b"".join(read) == b"".join(export(store, user_id, "csv"))
    left = export(store, user_id, "csv")
    next(left)
    del left
    assert store.create_conversation(user_id)
