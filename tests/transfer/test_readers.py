"""What is exported, opened by the programs that people open it with."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
import subprocess
import zipfile
from pathlib import Path

import frictionless
import pandas as pd
import pyarrow.parquet as pq
import pytest

from glm_backend.store import Store
from glm_backend.transfer import Selection, export, export_file, parquet_export
from tests.store.talk import ask
from tests.transfer.generated import conversations
from tests.transfer.imported import imported

_TEXTS = ["你好，世界 😀", '=HYPERLINK("http://x")', "-1", 'a "b",\r\nc;\td', "2026-11-24", "007"]


@pytest.fixture
def talked(store: Store, user_id: str) -> Store:
    """A store in which all of these texts were said."""
    conversation = store.create_conversation(user_id, title="对话，一").id
    for text in _TEXTS:
        ask(store, user_id, conversation, text, text)
    return store


def _guarded(text: str) -> str:
    return "'" + text if text[0] in "=-" else text


def test_pandas_reads_the_csv(talked: Store, user_id: str) -> None:
    for bom in (False, True):
        file = io.BytesIO(b"".join(export(talked, user_id, "csv", bom=bom)))
        table = pd.read_csv(file, parse_dates=["created_at"], dtype={"seed": "Int64"})
        assert list(table["content"])[::2] == [_guarded(text) for text in _TEXTS]
        assert set(table["conversation_title"]) == {"对话，一"}
        assert str(table["created_at"].dt.tz) == "UTC"
        assert table["seed"].max() == 2**63 - 1


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed")
def test_libreoffice_reads_the_csv(talked: Store, user_id: str, tmp_path: Path) -> None:
    """Opened as a person would, with a comma and UTF-8, and saved as a table of its own again."""
    source = tmp_path / "export.csv"
    export_file(source, export(talked, user_id, "csv", bom=True))
    subprocess.run(
        [
            "soffice",
            f"-env:UserInstallation=file://{tmp_path / 'profile'}",
            "--headless",
            "--infilter=Text - txt - csv (StarCalc):44,34,76,1",
            "--convert-to",
            "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,-1",
            "--outdir",
            str(tmp_path / "out"),
            str(source),
        ],
        check=True,
        capture_output=True,
        timeout=180,
    )
    (saved,) = (tmp_path / "out").glob("*.csv")
    rows = list(csv.DictReader(io.StringIO(saved.read_text(encoding="utf-8-sig"), newline="")))
    shown = [row["content"].replace("\r\n", "\n") for row in rows]
    expected = [_guarded(text).replace("\r\n", "\n") for text in _TEXTS]
    assert shown[::2] == shown[1::2]
    assert shown[:4:2] + shown[6:8:2] == expected[:2] + expected[3:4]
    assert {row["conversation_title"] for row in rows} == {"对话，一"}
    assert not any("Err:" in text or "#NAME" in text for text in shown)


def test_parquet_has_every_text_and_every_number_as_it_was(store: Store, user_id: str) -> None:
    imported(store, user_id, {"conversations": conversations(random.Random(3), 200)})
    file = io.BytesIO(b"".join(export(store, user_id, "parquet")))
    rows = pq.read_table(file).to_pylist()
    said = [m for c in _as_json(store, user_id) for m in c["messages"]]
    assert len(rows) == len(said) > 500
    for row, message in zip(rows, said, strict=True):
        row["created_at"] = row["created_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)
        assert {name: row[name] for name in message} == message


def _as_json(store: Store, user_id: str) -> list[dict[str, list[dict[str, object]]]]:
    return list(json.loads(b"".join(export(store, user_id, "json")))["conversations"])


def test_parquet_is_written_in_groups_of_rows(
    store: Store, user_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_export, "_GROUP_ROWS", 4)
    for n in range(5):
        ask(store, user_id, store.create_conversation(user_id).id, f"q{n}")
    file = io.BytesIO(b"".join(export(store, user_id, "parquet")))
    metadata = pq.ParquetFile(file).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [4, 4, 2]
    assert pd.read_parquet(file)["content"].tolist()[::2] == [f"q{n}" for n in range(5)]
    empty = io.BytesIO(b"".join(export(store, user_id, "parquet", Selection([]))))
    assert len(pd.read_parquet(empty)) == 0


def test_frictionless_finds_the_table_as_it_is_described(
    talked: Store, user_id: str, tmp_path: Path
) -> None:
    package = tmp_path / "conversations.zip"
    export_file(package, export(talked, user_id, "datapackage"))
    report = frictionless.validate(str(package), type="package")
    assert report.valid, report.flatten(["rowNumber", "fieldName", "message"])
    with zipfile.ZipFile(package) as packed:
        packed.extractall(tmp_path / "x")
    table = tmp_path / "x" / "messages.csv"
    before, _, after = table.read_bytes().rpartition(b",user,")
    table.write_bytes(before + b",robot," + after)
    report = frictionless.validate(str(tmp_path / "x" / "datapackage.json"))
    assert {error[0] for error in report.flatten(["type"])} == {
        "hash-count",
        "byte-count",
        "constraint-error",
    }
