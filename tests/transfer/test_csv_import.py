"""Our own CSV, read back."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from glm_backend.store import Store
from glm_backend.transfer import export
from tests.store.talk import ANSWER, ask
from tests.transfer.generated import conversations
from tests.transfer.imported import exported, imported, tree


@pytest.fixture
def table(store: Store) -> bytes:
    """What a user `local` of another store has, as CSV."""
    theirs = store.ensure_user("local")
    imported(store, theirs, {"conversations": conversations(random.Random(4), 300)})
    return b"".join(export(store, theirs, "csv", bom=True))


def test_what_a_table_tells_comes_back(store: Store, table: bytes) -> None:
    """A second user takes it, so the ids are others; the rows are not."""
    second = store.ensure_user("second")
    report = imported(store, second, table)
    assert not report.counts["refused"]
    assert set(report.forms) == {"csv"}
    before = pd.read_csv(io.BytesIO(table), keep_default_na=False, dtype=str)
    again = io.BytesIO(b"".join(export(store, second, "csv")))
    after = pd.read_csv(again, keep_default_na=False, dtype=str)
    others = ["conversation_id", "message_id", "parent_id", "user"]
    said = before.sort_values(["created_at", "content"]).drop(columns=others)
    kept = after.sort_values(["created_at", "content"]).drop(columns=others)
    assert len(said) > 500
    assert said.to_numpy().tolist() == kept.to_numpy().tolist()


def test_a_table_imported_where_it_came_from_adds_nothing(store: Store, table: bytes) -> None:
    report = imported(store, store.ensure_user("local"), table)
    assert set(report.counts) == {"known"}


def test_a_guarded_formula_is_a_formula_again(store: Store, user_id: str) -> None:
    question = {"messages": [{"role": "user", "content": "=1+1"}], "title": "-x"}
    imported(store, user_id, question)
    text = b"".join(export(store, user_id, "csv"))
    assert b'"\'=1+1"' in text
    imported(store, store.ensure_user("second"), text)
    (conversation,) = exported(store, store.ensure_user("second"))
    assert tree(conversation) == ["0 > u: =1+1 *"]
    assert conversation["title"] == "-x"


@pytest.mark.parametrize("text", ["=1", "'=1", "''- x", "' =1", "'1", "it's", "'", "''"])
def test_apostrophes_that_were_written_are_kept(store: Store, user_id: str, text: str) -> None:
    imported(store, user_id, {"messages": [{"role": "user", "content": text}]})
    table = b"".join(export(store, user_id, "csv"))
    imported(store, store.ensure_user("second"), table)
    (conversation,) = exported(store, store.ensure_user("second"))
    assert tree(conversation) == [f"0 > u: {text} *"]


def test_a_row_without_its_time_costs_its_conversation_only(store: Store, user_id: str) -> None:
    """The time is the last column: a file that was cut off lacks it."""
    for text in ("one", "two"):
        imported(store, user_id, {"messages": [{"role": "user", "content": text}] * 2})
    table = b"".join(export(store, user_id, "csv")).rstrip()
    report = imported(store, store.ensure_user("second"), table[: table.rindex(b",") + 1])
    assert report.counts == {"imported": 1, "refused": 1}


def test_rows_that_were_sorted_otherwise_are_not_taken_by_halves(
    store: Store, user_id: str
) -> None:
    for n in range(2):
        said = [[f"q{n}", "a"], ["q", "a"]]
        imported(store, user_id, {"history": said, "id": n})
    text = b"".join(export(store, user_id, "csv")).decode()
    head, *rows = text.splitlines(keepends=True)
    mixed = "".join([head, rows[0], rows[4], *rows[1:4], *rows[5:]]).encode()
    report = imported(store, store.ensure_user("second"), mixed)
    reasons = [str(entry.error) for entry in report.entries if entry.error]
    assert len(reasons) == 2
    assert all("its rows do not stand together" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t.replace(b",1,1,user,", b",1,1,robot,", 1), "role is 'robot'"),
        (lambda t: t.replace(b'"q"', b'"q",x', 1), "a row is damaged"),
        (lambda t: t.replace(b'"q"', b'"\xc4\xe3"', 2), "no UTF-8"),
        (lambda t: t[: t.index(b'"q"') + 2], "line 2 of the table is damaged"),
        (lambda t: t.replace(b",user,message_id", b",user,id", 1), "a row is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_table_says_where(store: Store, user_id: str, damage: object, said: str) -> None:
    imported(store, user_id, [["q", "a"]])
    text = b"".join(export(store, user_id, "csv"))
    report = imported(store, store.ensure_user("second"), damage(text), "csv")  # type: ignore[operator]
    assert said in "".join(str(entry.error) for entry in report.entries)
    assert report.counts["imported"] == 0


def _three(store: Store, user_id: str) -> bytes:
    """A table of three conversations, the oldest first."""
    for n in "123":
        said = [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "a"}]
        imported(store, user_id, {"messages": said, "title": f"title {n}"})
    return b"".join(export(store, user_id, "csv"))


@pytest.mark.parametrize("named", [b'"question 2"', b'"title 2"'])
def test_bytes_that_are_no_utf8_cost_their_conversation_only(
    store: Store, user_id: str, named: bytes
) -> None:
    text = _three(store, user_id).replace(named, b'"\xc4\xe3"')
    report = imported(store, store.ensure_user("second"), text)
    assert [entry.outcome for entry in report.entries] == ["imported", "refused", "imported"]
    assert "it is no UTF-8" in str(report.entries[1].error)
    assert json.dumps(report.values(), ensure_ascii=False).encode()


def test_behind_a_stray_quote_nothing_is_read_and_that_is_said(store: Store, user_id: str) -> None:
    text = _three(store, user_id).replace(b'"question 3"', b'"question"3"')
    report = imported(store, store.ensure_user("second"), text)
    assert [(entry.title, entry.outcome) for entry in report.entries] == [
        ("title 1", "imported"),
        ("title 2", "refused"),  # whether the damaged row is one of its own cannot be known
    ]
    refused = str(report.entries[1].error)
    assert "line 6 of the table is damaged" in refused
    assert "nothing behind it was read" in refused


def _with_delimiter(table: bytes, delimiter: str) -> bytes:
    rows = csv.reader(io.StringIO(table.decode(), newline=""))
    saved = io.StringIO(newline="")
    csv.writer(saved, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return saved.getvalue().encode("utf-8-sig")


def _by_pandas(table: bytes) -> bytes:
    return pd.read_csv(io.BytesIO(table)).to_csv().encode()


@pytest.mark.parametrize(
    "saved",
    [
        lambda table: _with_delimiter(table, ","),
        lambda table: _with_delimiter(table, ";"),
        lambda table: _with_delimiter(table, "\t").decode("utf-8-sig").encode("utf-16"),
        _by_pandas,
    ],
    ids=["quoted", "semicolons", "tabs in UTF-16", "pandas"],
)
def test_a_table_that_something_else_saved_again_is_taken(
    store: Store, user_id: str, saved: Callable[[bytes], bytes]
) -> None:
    conversation = store.create_conversation(user_id, title="天空，sky; blue").id
    ask(store, user_id, conversation, 'Why\n"blue"?', "Because, well; 散射.")
    ask(store, user_id, conversation, answer=replace(ANSWER, seed=7))
    text = saved(b"".join(export(store, user_id, "csv")))
    second = store.ensure_user("second")
    assert dict(imported(store, second, text).counts) == {"imported": 1}
    (before,), (after,) = exported(store, user_id), exported(store, second)
    assert tree(after) == tree(before)
    assert after["title"] == before["title"]
    assert [m["max_new_tokens"] for m in after["messages"]] == [None, 256, None, 256]
    rounded = saved is _by_pandas  # a column with empty cells is one of floats
    assert after["messages"][1]["seed"] == (None if rounded else 2**63 - 1)
