"""Lists, exports and imports over HTTP, for programs on this machine."""

from __future__ import annotations

import io
import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from glm_backend.api.routes import make_routes
from glm_backend.services import Services
from glm_backend.testing import FakeModel
from glm_backend.transfer import EXPORT_FORMS, Selection, export
from tests.fakes import fake_services
from tests.forms.servers import served

_HISTORY = [["你好", "你好！"], ["再见", "再见！"]]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Three conversations, answered."""
    opened = fake_services(tmp_path / "data", FakeModel(words=["好的"]))
    for text in ("first", "second", "third"):
        conversation = opened.store.create_conversation(opened.user_id).id
        opened.chat.send(opened.user_id, conversation, text).wait_saved(10)
    yield opened
    opened.close()


@pytest.fixture
def client(services: Services) -> TestClient:
    app = Starlette(routes=make_routes(lambda: services))
    return TestClient(
        app,
        base_url="http://127.0.0.1:8501",
        client=("127.0.0.1", 50000),
        raise_server_exceptions=False,
    )


def _import(client: TestClient, value: Any, query: str = "") -> dict[str, Any]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    answer = client.post(f"/api/import{query}", content=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_page_of_the_list_and_how_many_there_are(client: TestClient) -> None:
    listed = client.get("/api/conversations?limit=2").json()
    assert listed["total"] == 3
    assert [row["title"] for row in listed["conversations"]] == ["third", "second"]
    assert listed["conversations"][0]["message_count"] == 2
    assert listed["conversations"][0]["created_at"].endswith("Z")
    rest = client.get("/api/conversations?limit=2&offset=2").json()
    assert [row["title"] for row in rest["conversations"]] == ["first"]
    found = client.get("/api/conversations?text=second").json()
    assert (found["total"], len(found["conversations"])) == (1, 1)


def test_one_conversation_is_a_line_of_the_export(client: TestClient, services: Services) -> None:
    chosen = client.get("/api/conversations").json()["conversations"][0]["id"]
    answer = client.get(f"/api/conversations/{chosen}")
    assert answer.headers["content-type"] == "application/json"
    line = b"".join(
        export(services.store, services.user_id, "jsonl", Selection(conversation_ids=[chosen]))
    )
    assert answer.content == line
    assert answer.json()["id"] == chosen


@pytest.mark.parametrize("form", EXPORT_FORMS)
def test_every_form_is_the_file_that_the_other_rooms_give(
    client: TestClient, services: Services, form: str
) -> None:
    answer = client.get(f"/api/export?format={form}")
    assert answer.status_code == 200
    known = EXPORT_FORMS[form]
    assert answer.headers["content-type"] == known.media_type
    attached = f'attachment; filename="{known.file_name(Selection())}"'
    assert answer.headers["content-disposition"] == attached
    same = b"".join(export(services.store, services.user_id, form))
    if form == "datapackage":
        with zipfile.ZipFile(io.BytesIO(answer.content)) as package:
            table = package.read("messages.csv")
        assert table == b"".join(export(services.store, services.user_id, "csv"))
    elif form == "json":
        assert answer.json()["conversations"] == json.loads(same)["conversations"]
    else:
        assert answer.content == same


def test_an_export_of_what_was_chosen(client: TestClient, services: Services) -> None:
    answer = client.get("/api/export?format=csv&text=second&since=2020-01-01&branch=shown")
    assert list(pd.read_csv(io.BytesIO(answer.content))["content"]) == ["second", "好的"]
    ids = [c["id"] for c in client.get("/api/conversations").json()["conversations"]]
    answer = client.get(f"/api/export?format=csv&conversation={ids[0]}&conversation={ids[2]}")
    assert list(pd.read_csv(io.BytesIO(answer.content))["content"])[::2] == ["first", "third"]


def test_an_import_first_as_a_preview(client: TestClient, services: Services) -> None:
    preview = _import(client, _HISTORY, "?dry_run=true")
    assert preview["dry_run"] is True
    assert preview["conversations"]["imported"] == 1
    assert client.get("/api/conversations").json()["total"] == 3
    report = _import(client, _HISTORY)
    assert (report["dry_run"], report["messages"], report["forms"]) == (False, 4, {"history": 1})
    assert client.get("/api/conversations?text=再见").json()["total"] == 1
    assert _import(client, _HISTORY)["conversations"]["known"] == 1


def test_an_import_says_what_it_could_not_take(client: TestClient) -> None:
    report = _import(client, b'[{"title":"lost","mapping":5}]\n[["q","a"]]', "?format=auto")
    refused, taken = report["entries"]
    assert (refused["position"], refused["title"], refused["outcome"]) == (1, "lost", "refused")
    assert "it has none of the forms that are known" in refused["reason"]
    assert taken["outcome"] == "imported"
    assert _import(client, b"")["entries"] == []


def test_an_export_comes_back_through_an_import(client: TestClient, services: Services) -> None:
    document = client.get("/api/export?format=json").content
    assert _import(client, document)["conversations"]["known"] == 3


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/conversations?limit=0x5", 422, "InvalidParameter"),
        ("GET", "/api/conversations?limit=1001", 422, "InvalidParameter"),
        ("GET", "/api/conversations?limit=1&limit=2", 422, "InvalidParameter"),
        ("GET", "/api/conversations?offset=-1", 422, "InvalidParameter"),
        ("GET", "/api/conversations?offset=" + "9" * 5000, 422, "InvalidParameter"),
        ("GET", "/api/conversations?limit=²", 422, "InvalidParameter"),
        ("GET", "/api/conversations?branch=all", 422, "InvalidParameter"),
        ("GET", "/api/conversations?since=then", 422, "InvalidParameter"),
        ("GET", "/api/conversations/nothing", 404, "UnknownConversation"),
        ("GET", "/api/conversations/nothing?format=csv", 422, "InvalidParameter"),
        ("GET", "/api/export?format=json&bom=true", 422, "InvalidParameter"),
        ("GET", "/api/export?format=csv&bom=true&bom=true", 422, "InvalidParameter"),
        ("GET", "/api/export?format=csv&rating=5", 422, "InvalidParameter"),
        ("GET", "/api/export?format=csv&user=root", 422, "InvalidParameter"),
        ("POST", "/api/import?format=docx", 422, "InvalidParameter"),
        ("POST", "/api/import?dry_run=perhaps", 422, "InvalidParameter"),
        ("POST", "/api/import?user=root", 422, "InvalidParameter"),
    ],
)
def test_what_cannot_be_done_is_said_as_json(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


def test_a_form_of_a_web_page_is_refused_with_the_way_to_do_it(client: TestClient) -> None:
    answer = client.post("/api/import", files={"file": b"[]"})
    assert answer.status_code == 422
    assert "--data-binary" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://127.0.0.1:9999", 403),
        ("null", 403),
        ("http://127.0.0.1:8501", 200),
    ],
)
def test_a_page_of_another_site_imports_nothing(
    client: TestClient, origin: str, status: int
) -> None:
    """A browser may send it, as text/plain needs no leave; the origin says who it was."""
    answer = client.post("/api/import", content=b"[]", headers={"Origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/conversations"),
        ("GET", "/api/conversations/x"),
        ("GET", "/api/export?format=csv"),
        ("POST", "/api/import"),
    ],
)
def test_another_machine_is_refused(services: Services, method: str, path: str) -> None:
    app = Starlette(routes=make_routes(lambda: services))
    away = TestClient(app, base_url="http://127.0.0.1:8501", client=("192.168.1.7", 50000))
    answer = away.request(method, path)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "LoopbackOnly"


def test_an_upload_that_breaks_off_imports_nothing(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    app = Starlette(routes=make_routes(lambda: services))
    with served(app) as address:
        port = int(address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as upload:
            head = "POST /api/import HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n"
            upload.sendall(head.encode() + b'[["q","a"]]\n')
    assert services.store.count_conversations(services.user_id) == 3
    assert not caplog.records


def test_a_large_upload_is_taken_piece_by_piece(services: Services) -> None:
    app = Starlette(routes=make_routes(lambda: services))
    lines = [json.dumps([[f"q{n}", "长" * 2000]]).encode() + b"\n" for n in range(500)]
    with served(app) as address:
        answer = httpx2.post(f"{address}/api/import", content=iter(lines), timeout=60)
    assert answer.json()["conversations"]["imported"] == 500


@pytest.mark.parametrize("number", ["0" * 20 + "1000000", "1001", "0" * 5000 + "1", "-1", "", "x"])
def test_a_number_out_of_its_limits_is_refused(client: TestClient, number: str) -> None:
    assert client.get(f"/api/conversations?limit={number}").status_code == 422
    assert client.get("/api/conversations?limit=10&offset=2147483648").status_code == 200
