"""docs/exports.md says what exports and imports do, and its examples are what they give."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from glm_backend.errors import Phrase
from glm_backend.store import Store
from glm_backend.transfer import EXPORT_FORMS, IMPORT_FORMS, SELECTION_WORDS, export
from glm_backend.transfer.csv_export import TEXT_COLUMNS
from glm_backend.transfer.import_report import Entry, ImportReport
from glm_backend.transfer.parquet_export import PARQUET_COLUMNS, SCHEMA
from glm_backend.transfer.records import CSV_COLUMNS, MESSAGE_FIELDS
from tests.transfer.imported import exported, imported, tree

_DOCS = Path(__file__).parents[2] / "docs"
_TEXT = (_DOCS / "exports.md").read_text(encoding="utf-8")
_JSON_SCHEMA = json.loads((_DOCS / "export.schema.json").read_text(encoding="utf-8"))
_FOREIGN = [form for form in IMPORT_FORMS if form not in ("auto", "json", "jsonl", "csv")]


def _section(title: str) -> str:
    inside = r"((?:^```.*?^```\n|.)*?)(?=^## |\Z)"  # examples have lines like headings, too
    found = re.search(rf"^## {re.escape(title)}\n{inside}", _TEXT, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def _example(title: str) -> str:
    """The last block of code in this section, as a file has it."""
    return re.findall(r"```\w+\n(.*?)```", _section(title), re.DOTALL)[-1]


def _rows(section: str) -> list[str]:
    return re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)


@pytest.fixture
def with_example(store: Store, user_id: str) -> Store:
    """A store that holds the conversation of the example."""
    report = imported(store, user_id, _example("JSON").encode())
    assert dict(report.counts) == {"imported": 1}
    return store


@pytest.mark.parametrize(
    ("title", "form"),
    [
        ("CSV", "csv"),
        ("JSON", "json"),
        ("JSONL", "jsonl"),
        ("Markdown", "markdown"),
        ("ShareGPT", "sharegpt"),
        ("OpenAI's fine-tuning messages", "openai"),
    ],
)
def test_each_example_is_what_an_export_gives(
    with_example: Store, user_id: str, title: str, form: str
) -> None:
    given = b"".join(export(with_example, user_id, form)).decode()
    exported_at = r'"exported_at":"[^"]*"'
    assert re.sub(exported_at, "", given.replace("\r\n", "\n")) == re.sub(
        exported_at, "", _example(title)
    )


def test_the_example_of_a_typed_table_is_its_schema() -> None:
    assert _example("Parquet") == f"{SCHEMA}\n"
    assert tuple(SCHEMA.names) == PARQUET_COLUMNS


def test_every_form_and_every_word_is_explained() -> None:
    tables = _TEXT.partition("## Taking away")
    assert _rows(tables[0]) == [f"`{form}`" for form in EXPORT_FORMS]
    words = [word for row in _rows(_section("Taking away")) for word in re.findall(r"\w+", row)]
    assert words == list(SELECTION_WORDS)
    forms = [word for row in _rows(_section("Bringing in")) for word in re.findall(r"[\w-]+", row)]
    assert forms == [form for form in IMPORT_FORMS if form != "auto"]


def test_every_field_is_explained_in_order() -> None:
    fields = _rows(_section("Fields of a message"))
    assert fields == [f"`{name}`" for name in PARQUET_COLUMNS]
    (conversation,) = json.loads(_example("JSON"))["conversations"]
    named = re.findall(r"`(\w+)`", " ".join(_rows(_section("JSON"))))
    assert named == list(conversation)


def test_the_columns_that_are_guarded_against_formulas_are_named() -> None:
    rule = _TEXT.partition("the columns `conversation_title`")[1:]
    sentence = "".join(rule).partition("a text whose")[0]
    assert tuple(re.findall(r"`(\w+)`", sentence)) == TEXT_COLUMNS


def test_the_schema_names_the_fields_that_are_written() -> None:
    message = _JSON_SCHEMA["$defs"]["message"]
    assert tuple(message["properties"]) == tuple(message["required"]) == MESSAGE_FIELDS
    conversation = _JSON_SCHEMA["$defs"]["conversation_fields"]
    assert list(conversation["properties"]) == conversation["required"]


def test_the_examples_hold_to_the_schema() -> None:
    document = json.loads(_example("JSON"))
    Draft202012Validator(_JSON_SCHEMA).validate(document)
    line = json.loads(_example("JSONL"))
    of_a_line = {"$ref": "#/$defs/line", "$defs": _JSON_SCHEMA["$defs"]}
    Draft202012Validator(of_a_line).validate(line)
    assert line == {"format": "glm-chat", "version": 1, **document["conversations"][0]}
    header, *rows = csv.reader(_example("CSV").splitlines(keepends=True))
    assert tuple(header) == CSV_COLUMNS
    assert len(rows) == len(line["messages"]) == 3


def test_the_description_in_the_package_names_the_columns_of_its_table(
    with_example: Store, user_id: str
) -> None:
    packed = zipfile.ZipFile(io.BytesIO(b"".join(export(with_example, user_id, "datapackage"))))
    with packed as package:
        assert package.namelist() == ["messages.csv", "datapackage.json"]
        assert package.read("messages.csv") == b"".join(export(with_example, user_id, "csv"))
        (resource,) = json.loads(package.read("datapackage.json"))["resources"]
    assert [field["name"] for field in resource["schema"]["fields"]] == list(CSV_COLUMNS)


@pytest.mark.parametrize("form", _FOREIGN)
def test_each_example_of_a_foreign_form_is_taken(store: Store, user_id: str, form: str) -> None:
    found = re.search(rf"```json {form}\n(.*?)```", _TEXT, re.DOTALL)
    assert found
    (entry,) = imported(store, user_id, found[1].encode()).entries
    assert (entry.form, entry.outcome, entry.messages) == (form, "imported", 2)
    assert tree(exported(store, user_id)[0]) == ["0 > u: Why blue?", "1 > a: Scattering. *"]


def test_the_example_of_a_report_has_its_fields() -> None:
    found = re.search(r"```json report\n(.*?)```", _TEXT, re.DOTALL)
    assert found
    shown: dict[str, Any] = json.loads(found[1])
    report = ImportReport(dry_run=False)
    report.add(Entry(1, "t", "json", "imported", notes=[Phrase("it is no UTF-8")]))
    values = report.values()
    assert list(shown) == list(values)
    assert list(shown["conversations"]) == list(values["conversations"])
    assert all(list(entry) == list(values["entries"][0]) for entry in shown["entries"])
