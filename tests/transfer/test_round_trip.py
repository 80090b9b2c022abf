"""Export, import into an empty store, export: the same bytes but for the time of the export."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_backend.store import Store
from glm_backend.transfer import export, import_file
from tests.postgres import PostgresServer
from tests.store.talk import Clock
from tests.transfer.generated import conversations

_NewDatabase = Callable[[], AbstractContextManager[str]]

_EXPORTED_AT = re.compile(rb'"exported_at":"[^"]*"')


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def new_database(request: pytest.FixtureRequest) -> _NewDatabase:
    """Makes an empty database of one kind, and gives its URL until it is left."""
    return _new_sqlite(request) if request.param == "sqlite" else _new_postgres(request)


def _new_sqlite(request: pytest.FixtureRequest) -> _NewDatabase:
    template: Path = request.getfixturevalue("sqlite_template")

    @contextmanager
    def new() -> Iterator[str]:
        with TemporaryDirectory() as folder:
            yield f"sqlite:///{shutil.copy(template, folder)}"

    return new


def _new_postgres(request: pytest.FixtureRequest) -> _NewDatabase:
    server: PostgresServer = request.getfixturevalue("postgres")
    template: str = request.getfixturevalue("postgres_template")

    @contextmanager
    def new() -> Iterator[str]:
        url = server.new_database(template)
        yield url
        server.drop(url)

    return new


@contextmanager
def _empty_store(new_database: _NewDatabase) -> Iterator[tuple[Store, str]]:
    with new_database() as url:
        store = Store.open(url, now=Clock())
        yield store, store.ensure_user("local")
        store.close()


def _exported(store: Store, user_id: str, form: str) -> bytes:
    """The export, as if they were all made at one time."""
    same = b'"exported_at":"2026-11-24T01:50:00.000000Z"'
    return _EXPORTED_AT.sub(same, b"".join(export(store, user_id, form)), count=1)


def _there_and_back(new_database: _NewDatabase, document: bytes, form: str) -> tuple[bytes, bytes]:
    """What a store exports that has imported `document`, and what one does that imports that."""
    with _empty_store(new_database) as (first, user_id):
        report = import_file(first, user_id, io.BytesIO(document))
        assert not report.counts["refused"], report.entries
        once = _exported(first, user_id, form)
    with _empty_store(new_database) as (second, user_id):
        import_file(second, user_id, io.BytesIO(once))
        return once, _exported(second, user_id, form)


def _document(conversations: list[dict[str, Any]]) -> bytes:
    document = {"format": "glm-chat", "version": 1, "conversations": conversations}
    return json.dumps(document).encode()


def _as_kept(value: Any) -> Any:
    """By the rule for characters that no text may have, said another way than in the code."""
    if isinstance(value, str):
        joined = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return joined.replace("\0", "␀")
    if isinstance(value, list):
        return [_as_kept(element) for element in value]
    if isinstance(value, dict):
        return {_as_kept(name): _as_kept(inner) for name, inner in value.items()}
    return value


def _expected(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = _as_kept(made)
    for one in kept:
        one["tags"] = sorted(one["tags"])
        for message in one["messages"]:
            if message["status"] == "generating":
                message["status"] = "interrupted"
    return sorted(kept, key=lambda one: (one["created_at"], one["id"]))


_some = st.builds(conversations, st.randoms(use_true_random=False), st.integers(0, 4))


@settings(max_examples=60, deadline=None)
@given(made=_some)
def test_everything_comes_back_as_json(
    new_database: _NewDatabase, made: list[dict[str, Any]]
) -> None:
    once, twice = _there_and_back(new_database, _document(made), "json")
    assert once == twice
    assert json.loads(once)["conversations"] == _expected(made)


@settings(max_examples=20, deadline=None)
@given(made=_some)
def test_everything_comes_back_as_jsonl(
    new_database: _NewDatabase, made: list[dict[str, Any]]
) -> None:
    once, twice = _there_and_back(new_database, _document(made), "jsonl")
    assert once == twice
    head = {"format": "glm-chat", "version": 1}
    lines = [json.loads(line) for line in once.splitlines()]
    assert lines == [head | one for one in _expected(made)]


@pytest.mark.parametrize(("form", "how_many"), [("json", 10_000), ("jsonl", 1_000)])
def test_thousands_of_conversations_come_back(
    new_database: _NewDatabase, form: str, how_many: int
) -> None:
    document = _document(conversations(random.Random(6), how_many))
    once, twice = _there_and_back(new_database, document, form)
    assert len(once) > 1_000 * how_many
    if once != twice:  # which pytest would compare for minutes
        lines = zip_longest(once.splitlines(), twice.splitlines())
        pytest.fail(repr(next(pair for pair in lines if pair[0] != pair[1])))


def test_importing_twice_adds_nothing(new_database: _NewDatabase) -> None:
    document = _document(conversations(random.Random(7), 50))
    with _empty_store(new_database) as (store, user_id):
        import_file(store, user_id, io.BytesIO(document))
        once = _exported(store, user_id, "json")
        report = import_file(store, user_id, io.BytesIO(document))
        assert (report.counts["known"], report.messages) == (50, 0)
        assert _exported(store, user_id, "json") == once
