"""The one way in: previews, reports, progress, and what memory it takes."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path

import pytest

from glm_backend.errors import InvalidParameter
from glm_backend.store import Store
from glm_backend.transfer import Selection, export, import_file
from tests.transfer.imported import exported, imported


def _lines(how_many: int, text: str = "a") -> bytes:
    said = [[[f"q{n}", text]] for n in range(how_many)]
    return "\n".join(json.dumps(history) for history in said).encode()


def test_a_preview_tells_what_would_happen_and_changes_nothing(store: Store, user_id: str) -> None:
    imported(store, user_id, _lines(1))
    file = io.BytesIO(_lines(3) + b"\n5")
    preview = import_file(store, user_id, file, dry_run=True)
    assert (preview.dry_run, preview.messages) == (True, 4)
    assert dict(preview.counts) == {"known": 1, "imported": 2, "refused": 1}
    assert store.count_conversations(user_id) == 1
    report = import_file(store, user_id, file)
    assert report.counts == preview.counts
    assert [e.values() | {"id": 0} for e in report.entries] == [
        e.values() | {"id": 0} for e in preview.entries
    ]


def test_what_is_in_the_trash_stays_there_and_is_told(store: Store, user_id: str) -> None:
    imported(store, user_id, _lines(1))
    store.delete(user_id, store.select_conversations(user_id))
    assert dict(imported(store, user_id, _lines(1)).counts) == {"trash": 1}
    assert exported(store, user_id) == []


def test_the_same_conversation_twice_in_a_file_is_one(store: Store, user_id: str) -> None:
    report = imported(store, user_id, _lines(1) + b"\n" + _lines(1))
    assert dict(report.counts) == {"imported": 1, "known": 1}


def test_what_comes_without_times_is_listed_in_the_order_of_the_file(
    store: Store, user_id: str
) -> None:
    imported(store, user_id, _lines(12))
    rows = store.list_conversations(user_id, limit=20)
    assert [row.title for row in rows] == [f"q{n}" for n in range(12)]


def test_the_first_thousand_of_each_outcome_are_listed(store: Store, user_id: str) -> None:
    report = imported(store, user_id, _lines(1500) + b"\n" + b'{"title":"x"}\n' * 1200)
    assert report.counts == {"imported": 1500, "refused": 1200}
    assert len(report.entries) == 2000
    assert report.left_off == 700
    assert [entry.position for entry in report.entries[:2]] == [1, 2]
    assert report.values()["conversations"] == {
        "imported": 1500, "known": 0, "trash": 0, "refused": 1200,
    }  # fmt: skip


def test_progress_goes_up_to_the_end(store: Store, user_id: str) -> None:
    told: list[float] = []
    import_file(store, user_id, io.BytesIO(_lines(9000, "x" * 500)), on_progress=told.append)
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1] == 1.0
    told.clear()
    ids = store.select_conversations(user_id)
    b"".join(export(store, user_id, "csv", Selection(ids), on_progress=told.append))
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0.0, 1.0)


def test_a_file_without_one_good_line_is_told_of_and_stopped_on_the_way(
    store: Store, user_id: str
) -> None:
    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        assert fraction < 1
        raise Stop

    with pytest.raises(Stop):
        import_file(store, user_id, io.BytesIO(b'{"no": 1}\n' * 50_000), on_progress=stop)


def test_a_form_that_is_not_known_is_refused(store: Store, user_id: str) -> None:
    with pytest.raises(InvalidParameter, match="format is 'docx'; it must be one of auto, json"):
        imported(store, user_id, b"[]", "docx")


def test_memory_does_not_grow_with_the_file(store: Store, user_id: str, tmp_path: Path) -> None:
    def peak_of_preview(how_many: int) -> int:
        path = tmp_path / "file.jsonl"
        path.write_bytes(_lines(how_many, "长" * 1000))
        tracemalloc.start()
        try:
            with path.open("rb") as file:
                report = import_file(store, user_id, file, dry_run=True)
            assert report.messages == 2 * how_many
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_of_preview(100)
    small = peak_of_preview(3500)  # more than two portions
    assert peak_of_preview(7000) < 1.1 * small
