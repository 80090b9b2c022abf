"""Our own CSV, read back."""

from __future__ import annotations

import io
import random

import pandas as pd
import pytest

from glm_backend.store import Store
from glm_backend.transfer import export
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
        (lambda t: t.replace(b'"q"', b'"\xc4\xe3"', 1), "no UTF-8"),
        (lambda t: t[: t.index(b'"q"') + 2], "the table is damaged"),
        (lambda t: t.replace(b",user,message_id", b",user,id", 1), "a row is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_table_says_where(store: Store, user_id: str, damage: object, said: str) -> None:
    imported(store, user_id, [["q", "a"]])
    text = b"".join(export(store, user_id, "csv"))
    report = imported(store, store.ensure_user("second"), damage(text), "csv")  # type: ignore[operator]
    assert said in "".join(str(entry.error) for entry in report.entries)
    assert report.counts["imported"] == 0
