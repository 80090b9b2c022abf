"""`python -m glm_backend export` and `import`, on the real commands."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from glm_backend.services import LOCAL_USER
from glm_backend.settings import Settings
from glm_backend.store.store import Store
from glm_backend.transfer import EXPORT_FORMS, Selection, export
from tests.forms.test_cli import ROOT, environment, run
from tests.store.talk import ask

_HISTORY = [["你好", "你好！"], ["再见", "再见！"]]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two conversations in a store of this folder."""
    folder = tmp_path / "data"
    settings = Settings(data_dir=folder)
    settings.make_data_dir()
    store = Store.open(settings.resolved_database_url)
    user = store.ensure_user(LOCAL_USER)
    for text in ("纸", "paper"):
        ask(store, user, store.create_conversation(user).id, text)
    store.close()
    return folder


def _exported(data_dir: Path, form: str, selection: Selection | None = None) -> bytes:
    store = Store.open(Settings(data_dir=data_dir).resolved_database_url)
    try:
        return b"".join(export(store, store.ensure_user(LOCAL_USER), form, selection))
    finally:
        store.close()


def _run_bytes(data_dir: Path, *arguments: str) -> bytes:
    command = [sys.executable, "-m", "glm_backend", *arguments]
    return subprocess.run(
        command, stdout=subprocess.PIPE, cwd=ROOT, env=environment(data_dir), check=True
    ).stdout


@pytest.mark.parametrize("form", sorted(set(EXPORT_FORMS) - {"json", "datapackage"}))
def test_every_form_is_the_file_that_the_other_rooms_give(data_dir: Path, form: str) -> None:
    assert _run_bytes(data_dir, "export", "--format", form) == _exported(data_dir, form)


def test_an_export_of_what_was_chosen(data_dir: Path) -> None:
    chosen = ("--text", "纸", "--since", "2020-01-01", "--branch", "shown", "--pinned", "false")
    done = run(data_dir, "export", "--format", "markdown", *chosen)
    assert "> 纸" in done.stdout
    assert "paper" not in done.stdout
    assert done.stderr == ""
    assert run(data_dir, "export", "--format", "csv", "--user", LOCAL_USER).returncode == 0
    done = run(data_dir, "export", "--format", "csv", "--user", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "There is no user named nobody." in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--format", "csv", "--since", "yesterday"),
        ("export", "--format", "csv", "--rating", "5"),
        ("export", "--format", "csv", "--tag", "a", "--tag", "b"),
        ("export", "--format", "parquet", "--bom"),
        ("import",),
        ("import", "x.json", "--format", "docx"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert "usage: python -m glm_backend" in done.stderr


def test_a_file_first_as_a_preview_then_taken_then_known(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "history.json"
    file.write_text(json.dumps(_HISTORY), encoding="utf-8")
    before = _exported(data_dir, "jsonl")
    done = run(data_dir, "import", str(file), "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 conversations with 4 messages would be imported." in done.stderr
    assert _exported(data_dir, "jsonl") == before
    done = run(data_dir, "import", str(file), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["conversations"]["imported"] == 1
    assert "1 conversations with 4 messages imported." in done.stderr
    done = run(data_dir, "import", str(file))
    assert "0 conversations with 0 messages imported, 1 were here already." in done.stderr


def test_what_could_not_be_taken_is_named(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "mixed.json"
    file.write_text('[{"title":"lost","mapping":{}}]\n[["q","a\\u0000"]]', encoding="utf-8")
    done = run(data_dir, "import", str(file))
    assert done.returncode == 0
    first, lost, changed = done.stderr.splitlines()
    assert first == "1 conversations with 2 messages imported, 1 cannot be taken."
    assert lost.startswith("  1. 'lost': refused: This conversation cannot be imported: it holds")
    assert changed == "  2. 'q': imported: 1 texts had characters that cannot be kept"


def test_a_file_of_which_nothing_can_be_taken_ends_with_1(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "other.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert run(data_dir, "import", str(file)).returncode == 1
    done = run(data_dir, "import", str(tmp_path / "missing.json"))
    assert done.returncode == 1
    assert "missing.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_export_comes_back_into_another_folder(data_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    run(data_dir, "export", "--format", "jsonl", "--output", str(file))
    other = tmp_path / "other"
    assert run(other, "import", str(file)).returncode == 0
    assert _exported(other, "jsonl") == file.read_bytes() == _exported(data_dir, "jsonl")


def test_progress_is_shown_to_a_terminal_only(data_dir: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "glm_backend", "export", "--format", "csv"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=environment(data_dir)
    )
    out, _ = process.communicate()
    os.close(theirs)
    with io.FileIO(ours) as terminal:
        shown = terminal.read(10_000) or b""
    assert b"exporting" in shown
    assert b"100%" in shown
    assert out == _exported(data_dir, "csv")
    assert b"exporting" not in out
