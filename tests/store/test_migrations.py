"""Revisions: they lead to the schema that the program uses, however many open it first."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, text

from glm_backend.errors import StoreFull, StoreTooNew
from glm_backend.store import ConversationFilter, Store, search_index
from glm_backend.store.migrate import _config
from glm_backend.store.schema import metadata
from tests.store.talk import ANSWER, Clock, ask

_ROOT = Path(__file__).parents[2]


def _is_a_plain_table(name: str | None, kind: str, parents: object) -> bool:
    # The search index is written in each database's own SQL (search_index.py).
    return not (kind == "table" and name is not None and name.startswith("search_"))


def test_the_revisions_lead_to_the_schema(store: Store) -> None:
    with store._database.reading() as connection:
        options = {"compare_type": True, "include_name": _is_a_plain_table}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        inspector = inspect(connection)
        for table in metadata.tables.values():
            kept = {key["name"]: key["options"] for key in inspector.get_foreign_keys(table.name)}
            meant = {key.name: {"ondelete": key.ondelete} for key in table.foreign_key_constraints}
            assert kept == meant


def test_the_search_index_merges_sixteen_parts_at_once(empty_sqlite_url: str) -> None:
    store = Store.open(empty_sqlite_url)
    with store._database.reading() as connection:
        query = "SELECT v FROM search_index_config WHERE k IN ('automerge', 'hashsize') ORDER BY k"
        kept = connection.exec_driver_sql(query).scalars().all()
    store.close()
    assert kept == [16, 4 * 2**20]


def test_sqlite_is_set_up_to_lose_nothing(empty_sqlite_url: str) -> None:
    store = Store.open(empty_sqlite_url)
    with store._database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in (
                "journal_mode",
                "foreign_keys",
                "synchronous",
                "busy_timeout",
                "secure_delete",
            )
        }
    store.close()
    assert pragmas == {
        "journal_mode": "wal",
        "foreign_keys": 1,
        "synchronous": 2,
        "busy_timeout": 5000,
        "secure_delete": 1,
    }


def test_opening_again_changes_nothing(empty_sqlite_url: str, tmp_path: Path) -> None:
    Store.open(empty_sqlite_url).close()
    before = (tmp_path / "glm.sqlite3").read_bytes()
    Store.open(empty_sqlite_url).close()
    assert (tmp_path / "glm.sqlite3").read_bytes() == before


def test_a_folder_name_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "数据 100%41 #1?"
    folder.mkdir()
    store = Store.open(f"sqlite:///{quote(str(folder))}/glm.sqlite3")
    assert store.ensure_user("local")
    store.close()
    assert (folder / "glm.sqlite3").is_file()


def test_many_threads_open_a_new_database_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store.open(empty_url), range(8)))
    assert len({store.ensure_user("local") for store in stores}) == 1
    for store in stores:
        store.close()


def test_processes_open_a_new_database_at_once(empty_url: str) -> None:
    program = (
        "import sys; from glm_backend.store import Store; s = Store.open(sys.argv[1]);"
        "print(s.ensure_user('local')); s.close()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_url], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    ids = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(ids)) == 1


#: What a person had at the first revision: two conversations, one deleted, three branches.
_FIRST = """
INSERT INTO users VALUES ('u1', 'local', '2025-01-01T00:00:00.000000Z');
INSERT INTO conversations VALUES
  ('c1', 'u1', '天气 notes', '{"top_k": 3}', 'm3', '2025-01-01T00:00:00.000001Z',
   '2025-01-02T00:00:00.000000Z', NULL),
  ('c2', 'u1', '', '{}', 'm5', '2025-01-03T00:00:00.000000Z',
   '2025-01-03T00:00:00.000000Z', '2025-02-01T00:00:00.000000Z');
INSERT INTO messages (id, conversation_id, parent_id, seq, turn, branch, role, status, model,
    quantization, seed, stop, prompt_tokens, completion_tokens, ttft_ms, tokens_per_s, rating,
    comment, owner, heartbeat_at, created_at, content) VALUES
  ('m1', 'c1', NULL, 1, 1, 1, 'user', 'complete', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, '2025-01-01T23:59:59.999999Z', 'Wie wird das Wetter?'),
  ('m2', 'c1', 'm1', 2, 1, 1, 'assistant', 'complete', 'glm', 'int4', 9223372036854775807,
   '["。"]', 10, 20, 100.5, 30.5, -1, 'wrong', 'x', '2025-01-02T00:00:00.000000Z',
   '2025-01-02T00:00:00.000000Z', 'Schön, 晴天'),
  ('m3', 'c1', 'm1', 3, 1, 2, 'assistant', 'generating', 'glm', 'int4', 1, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, 'dead/1/1.00/x', '2025-01-02T00:00:00.000000Z',
   '2025-01-02T00:00:00.000000Z', 'half'),
  ('m4', 'c2', NULL, 1, 1, 1, 'user', 'complete', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, '2025-01-03T00:00:00.000000Z', 'gone'),
  ('m5', 'c2', 'm4', 2, 1, 1, 'assistant', 'failed', 'glm', 'none', 1, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, '2025-01-03T00:00:00.000000Z', 'too');
INSERT INTO user_settings VALUES ('u1', 'temperature', '0.5');
INSERT INTO presets VALUES ('u1', 'calm', '{"temperature": 0}', '2025-01-01T00:00:00.000000Z');
"""


def at_first_revision(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        _upgrade(connection, "0001")
        for statement in _FIRST.split(";"):
            if statement.strip():
                connection.execute(text(statement.replace(":00", r"\:00").replace(":59", r"\:59")))
    engine.dispose()


def at_second_revision(url: str) -> None:
    at_first_revision(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        _upgrade(connection, "0002")
    engine.dispose()


def _upgrade(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


@pytest.mark.parametrize("at_revision", [at_first_revision, at_second_revision])
def test_what_was_written_at_an_earlier_revision_is_all_there(
    empty_url: str, at_revision: Callable[[str], None]
) -> None:
    at_revision(empty_url)
    store = Store.open(empty_url)
    conversation = store.conversation("u1", "c1")
    assert (conversation.title, conversation.settings) == ("天气 notes", {"top_k": 3})
    assert (conversation.pinned, conversation.archived_at, conversation.tags) == (False, None, ())
    question, answer = store.path("u1", "c1", "m2")
    assert (question.content, answer.content) == ("Wie wird das Wetter?", "Schön, 晴天")
    assert (answer.seed, answer.stop, answer.rating) == (2**63 - 1, ("。",), -1)
    assert (answer.min_p, answer.typical_p) == (None, None)
    assert store.path("u1", "c1")[-1].status == "generating"
    assert store.user_settings("u1") == {"temperature": 0.5}
    assert [p.name for p in store.presets("u1")] == ["calm"]
    assert store.restore("u1", ["c2"]) == ["c2"]
    assert [m.content for m in store.path("u1", "c2")] == ["gone", "too"]
    newer = store.begin_answer("u1", "c1", "m1", ANSWER, "me")
    (_, kept) = store.path("u1", "c1", newer.id)
    assert (kept.min_p, kept.typical_p) == (ANSWER.min_p, ANSWER.typical_p) != (None, None)
    store.close()


def test_what_was_written_at_the_first_revision_is_found_and_counted(empty_url: str) -> None:
    at_first_revision(empty_url)
    store = Store.open(empty_url)
    for words, count in (("天", 1), ("schön", 1), ("wett", 1), ("half", 0), ("gone", 0)):
        assert store.count_conversations("u1", ConversationFilter(text=words)) == count
    assert [(s.model, s.quantization, s.answers, s.tokens_per_s) for s in store.speeds("u1")] == [
        ("glm", "int4", 1, 30.5)
    ]
    assert store.mark_interrupted(lambda owner: False, store.now()) == 1
    assert store.count_conversations("u1", ConversationFilter(text="half")) == 1
    store.rename("u1", "c1", "other")
    assert store.count_conversations("u1", ConversationFilter(text="天气")) == 0
    store.close()


def test_words_far_apart_in_a_long_text_from_before_are_found_together(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    user_id = store.ensure_user("local")
    text_of_several_rows = " ".join(["zebra", *map(str, range(30_000)), "finale"])
    ask(store, user_id, store.create_conversation(user_id).id, text_of_several_rows)
    store.close()
    engine = create_engine(postgres_url)
    with engine.begin() as connection:  # as it was at the fourth revision
        connection.execute(text("UPDATE search_index SET tokens = ts_delete(tokens, ' ')"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0004'"))
    engine.dispose()
    store = Store.open(postgres_url)
    assert store.count_conversations(user_id, ConversationFilter(text="zebra finale")) == 1
    store.close()


def test_a_file_is_kept_as_it_was_before_it_is_migrated(
    empty_sqlite_url: str, tmp_path: Path
) -> None:
    at_first_revision(empty_sqlite_url)
    Store.open(empty_sqlite_url, now=Clock()).close()
    (kept,) = tmp_path.glob("*.0001-*")
    assert kept.name == "glm.sqlite3.0001-20261124-015001"
    with closing(sqlite3.connect(kept)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == ("0001",)
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (5,)
    Store.open(empty_sqlite_url).close()
    assert len(list(tmp_path.glob("*.0001-*"))) == 1


def test_a_migration_that_fails_changes_nothing(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_first_revision(empty_url)

    def full(connection: Connection) -> None:
        raise StoreFull(database="it")

    with monkeypatch.context() as patched:
        patched.setattr(search_index, "index_everything", full)
        with pytest.raises(StoreFull):
            Store.open(empty_url)
    engine = create_engine(empty_url)
    assert not inspect(engine).has_table("conversation_tags")
    assert not inspect(engine).has_table("search_index")
    engine.dispose()
    store = Store.open(empty_url)
    assert store.count_conversations("u1") == 1
    store.close()


def test_a_newer_database_is_refused_unharmed(url: str) -> None:
    Store.open(url).close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreTooNew, match="9999"):
        Store.open(url)
    with engine.begin() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    engine.dispose()
    assert found == "9999"
