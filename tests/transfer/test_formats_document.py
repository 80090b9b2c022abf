"""docs/export-formats.md says what the exports do."""

import csv
import json
import re
from pathlib import Path

from jsonschema import Draft202012Validator

from glm_backend.transfer.csv_export import TEXT_COLUMNS
from glm_backend.transfer.records import CSV_COLUMNS, MESSAGE_FIELDS

_DOCS = Path(__file__).parents[2] / "docs"
_TEXT = (_DOCS / "export-formats.md").read_text(encoding="utf-8")
_SCHEMA = json.loads((_DOCS / "export.schema.json").read_text(encoding="utf-8"))


def _example(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", _TEXT, re.DOTALL)
    assert found
    return found[1]


def test_every_field_is_explained_in_order() -> None:
    table = _TEXT.partition("## Fields of a message")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert explained == [*CSV_COLUMNS, *MESSAGE_FIELDS[-2:]]


def test_the_columns_that_are_guarded_against_formulas_are_named() -> None:
    rule = _TEXT.partition("the columns `conversation_title`")[1:]
    sentence = "".join(rule).partition("a text whose")[0]
    assert tuple(re.findall(r"`(\w+)`", sentence)) == TEXT_COLUMNS


def test_the_schema_names_the_fields_that_are_written() -> None:
    message = _SCHEMA["$defs"]["message"]
    assert tuple(message["properties"]) == tuple(message["required"]) == MESSAGE_FIELDS


def test_the_examples_are_what_they_say() -> None:
    document = json.loads(_example("json"))
    Draft202012Validator(_SCHEMA).validate(document)
    (conversation,) = document["conversations"]
    assert tuple(conversation["messages"][0]) == MESSAGE_FIELDS
    explained = re.findall(r"^\| `(\w+)`", _TEXT.partition("field of a conversation")[2], re.M)
    assert set(explained) | {"updated_at"} == set(conversation)
    header, *rows = csv.reader(_example("csv").splitlines(keepends=True))
    assert tuple(header) == CSV_COLUMNS
    ids = [row[CSV_COLUMNS.index("message_id")] for row in rows]
    assert len(ids) == len(conversation["messages"]) == 2
