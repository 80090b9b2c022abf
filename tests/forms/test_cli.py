"""`python -m glm_backend`: exit codes, what goes where, on the real commands."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from glm_backend import cli
from glm_backend.services import LOCAL_USER
from glm_backend.settings import Settings
from glm_backend.store.store import Store
from tests.models import tiny

ROOT = Path(__file__).parents[2]


def environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GLM_")}
    models = str(ROOT / ".cache" / "models")
    return kept | {"GLM_DATA_DIR": str(data_dir), "GLM_MODEL_DIR": models}


def run(
    data_dir: Path, *arguments: str, typed: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glm_backend", *arguments],
        input=typed,
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        env=environment(data_dir) | variables,
        timeout=300,
        check=False,
    )


@pytest.fixture
def conversation(tmp_path: Path) -> str:
    """One question in the store of `tmp_path`; its conversation's id."""
    settings = Settings(data_dir=tmp_path)
    store = Store.open(settings.resolved_database_url)
    user = store.ensure_user(LOCAL_USER)
    made = store.create_conversation(user, title="纸").id
    store.close()
    return made


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("dance",),
        ("chat", "--quantization", "int3"),
        ("serve", "--port", "http"),
        ("export", "--format", "xml"),
        ("export", "--format", "json", "--bom"),
        ("models", "pull"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert "usage: python -m glm_backend" in done.stderr
    assert done.stdout == ""


def test_a_wrong_setting_ends_with_2_and_a_model_that_is_not_there_with_1(tmp_path: Path) -> None:
    done = run(tmp_path, "models", "list", GLM_MODLE="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "GLM_MODEL" in done.stderr
    done = run(tmp_path, "chat", "--model", "no such folder")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such folder" in done.stderr


def test_models_for_people_and_for_scripts(tmp_path: Path) -> None:
    assert "chatglm2-6b-int4" in run(tmp_path, "models", "list").stdout
    listed = json.loads(run(tmp_path, "models", "list", "--json").stdout)
    assert {"smollm2-135m", "chatglm3-6b"} <= {entry["id"] for entry in listed}
    info = json.loads(run(tmp_path, "models", "info", "chatglm3-6b", "--json").stdout)
    assert info["family"] == "chatglm3"
    assert info["memory"]["int4"]["needed_bytes"] < info["memory"]["none"]["needed_bytes"]


def test_a_model_is_kept_in_few_bits_and_loads_from_there(tmp_path: Path) -> None:
    tiny.make(tmp_path / "source")
    done = run(tmp_path, "models", "convert", str(tmp_path / "source"), "--quantization", "int4",
               "--to", str(tmp_path / "kept"))  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'kept'}\n")
    info = json.loads(run(tmp_path, "models", "info", str(tmp_path / "kept"), "--json").stdout)
    assert info["model_type"] == "llama"
    assert len({needs["needed_bytes"] for needs in info["memory"].values()}) == 1
    done = run(tmp_path, "models", "convert", str(tmp_path / "kept"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "in few bits already" in done.stderr


def test_export_to_stdout_and_to_a_file(tmp_path: Path, conversation: str) -> None:
    done = run(tmp_path, "export", "--format", "json", "--conversation", conversation)
    assert [c["title"] for c in json.loads(done.stdout)["conversations"]] == ["纸"]
    file = tmp_path / "out.csv"
    done = run(tmp_path, "export", "--format", "csv", "--bom", "--output", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"))))
    assert rows[0][0] == "conversation_id"
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")


def test_an_export_that_fails_leaves_the_file_as_it_was(tmp_path: Path, conversation: str) -> None:
    file = tmp_path / "out.csv"
    file.write_text("before", encoding="utf-8")
    arguments = ("--output", str(file), "--conversation", "nothing")
    done = run(tmp_path, "export", "--format", "csv", *arguments)
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert file.read_text(encoding="utf-8") == "before"
    done = run(tmp_path, "export", "--format", "csv", "--output", str(tmp_path / "no" / "folder"))
    assert done.returncode == 1
    assert "no/folder" in done.stderr.replace(".folder.partial", "folder")


def test_bench_runs_what_make_bench_runs_and_says_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(tmp_path, "bench", "dance")
    assert done.returncode == 2
    assert "unknown: dance; there are starter," in done.stderr
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "glm_backend" / "cli.py"))
    assert cli.main(["bench"]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_gradio_says_how_to_install_it(tmp_path: Path) -> None:
    hidden = tmp_path / "gradio.py"  # in the place of the library, as if there were none
    hidden.write_text("raise ModuleNotFoundError(name='gradio')")
    done = run(tmp_path, "gradio", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "requirements-gradio.txt" in done.stderr


@pytest.mark.starter
def test_chat_with_the_starter_model(tmp_path: Path) -> None:
    done = run(tmp_path, "chat", "--quantization", "int8", typed="Say hello.\nstop\n")
    assert done.returncode == 0
    welcome, answer = done.stdout.split("\n用户：")[:2]
    assert welcome.startswith("欢迎使用 SmolLM2 135M Instruct 模型")
    assert len(answer.removeprefix("\nChatGLM：").strip()) > 0


@pytest.mark.starter
def test_bytes_that_are_no_text_end_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "glm_backend", "chat"],
        input=b"\xc4\xe3\nstop\n",
        cwd=ROOT,
        env=environment(tmp_path) | {"PYTHONIOENCODING": "utf-8:strict", "GLM_MAX_CONTEXT": "80"},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.starter
@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGINT])
def test_serve_until_it_is_told_to_stop(tmp_path: Path, ends: signal.Signals) -> None:
    """Then it closes the database, which leaves nothing beside it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "serve", "--port", str(port))
        assert done.returncode == 1
        assert f"port {port}" in done.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "glm_backend", "serve", "--port", str(port)],
        cwd=ROOT,
        env=environment(tmp_path),
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{address}/ready").status_code == 200:
                    break
            except httpx2.ConnectError:
                pass
            time.sleep(0.2)
        body = {"prompt": "Say hello.", "max_length": 50}
        assert httpx2.post(address, json=body, timeout=60).json()["status"] == 200
        process.send_signal(ends)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert not list(tmp_path.glob("glm.sqlite3-*"))


def test_serve_ends_with_1_when_its_model_cannot_be_loaded(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--port", "0", "--model", "no such folder")
    assert done.returncode == 1
    assert "no such folder" in done.stderr


def test_a_backup_is_written_and_restored(tmp_path: Path, conversation: str) -> None:
    done = run(tmp_path, "backup")
    assert (done.returncode, done.stderr) == (0, "")
    backup = Path(done.stdout.strip())
    assert backup.parent == tmp_path / "backups"
    done = run(tmp_path, "restore", str(backup))
    assert done.returncode == 0
    assert Path(done.stdout.strip()).name.startswith("glm.sqlite3.replaced-")
    exported = run(tmp_path, "export", "--format", "json")
    assert [c["id"] for c in json.loads(exported.stdout)["conversations"]] == [conversation]
    backup.write_bytes(b"notes")
    done = run(tmp_path, "restore", str(backup))
    assert (done.returncode, done.stdout) == (1, "")
    assert "not a usable database" in done.stderr
    assert run(tmp_path, "backup", str(backup)).returncode == 1
    assert run(tmp_path, "restore").returncode == 2


def test_doctor_says_what_is_there_and_fails_when_something_is_wrong(
    tmp_path: Path, conversation: str
) -> None:
    done = run(tmp_path, "doctor", "--json")
    report = json.loads(done.stdout)
    found = {finding["what"]: finding for finding in report["findings"]}
    assert "1 conversations, 0 messages" in found["database"]["found"]
    assert done.returncode == (0 if report["ok"] else 1)
    assert report["models"]["chatglm3-6b"]["int4"]["needed_bytes"] > 10**9
    assert "cpu" in report["devices"]
    (tmp_path / "glm.sqlite3").write_bytes(b"\xff" * 100_000)
    done = run(tmp_path, "doctor")
    assert done.returncode == 1
    assert "WRONG database" in done.stdout
    assert (tmp_path / "glm.sqlite3").read_bytes() == b"\xff" * 100_000
