"""The routes beside the pages: alive, ready, and the export for programs on this machine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.testclient import TestClient

from glm_backend.api.routes import make_routes
from glm_backend.api.security import CONTENT_SECURITY_POLICY, SecurityHeaders
from glm_backend.errors import StoreLocked
from glm_backend.services import Services
from glm_backend.testing import FakeModel
from tests.fakes import fake_services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """Two conversations, answered."""
    opened = fake_services(tmp_path / "data", FakeModel(words=["好的"]))
    for text in ("first", "second"):
        conversation = opened.store.create_conversation(opened.user_id).id
        opened.chat.send(opened.user_id, conversation, text).wait_saved(10)
    yield opened
    opened.close()


def _client(
    services: Callable[[], Services], peer: str = "127.0.0.1", host: str = "127.0.0.1:8501"
) -> TestClient:
    app = Starlette(routes=make_routes(services), middleware=[Middleware(SecurityHeaders)])
    return TestClient(
        app, base_url=f"http://{host}", client=(peer, 50000), raise_server_exceptions=False
    )


@pytest.fixture
def client(services: Services) -> TestClient:
    return _client(lambda: services)


def test_alive_and_ready(client: TestClient, services: Services) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").status_code == 200
    services.models.unload()
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {"state": "empty"}


def test_not_ready_while_the_database_is_away(tmp_path: Path) -> None:
    def locked() -> Services:
        raise StoreLocked(database="glm.sqlite3")

    client = _client(locked)
    assert client.get("/health").status_code == 200
    ready = client.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["error"]["code"] == "StoreLocked"
    export = client.get("/api/export?format=csv")
    assert export.status_code == 503
    assert export.json()["error"]["type"] == "server_error"


def test_export_as_csv(client: TestClient) -> None:
    answer = client.get("/api/export?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    attached = f'attachment; filename="conversations-{date.today()}.csv"'
    assert answer.headers["content-disposition"] == attached
    table = pd.read_csv(io.BytesIO(answer.content))
    assert list(table["content"]) == ["first", "好的", "second", "好的"]
    marked = client.get("/api/export?format=csv&bom=true").content
    assert marked == b"\xef\xbb\xbf" + answer.content


def test_export_as_json_of_one_conversation(client: TestClient, services: Services) -> None:
    chosen = services.store.list_conversations(services.user_id, limit=1)[0]
    answer = client.get(f"/api/export?format=json&conversation={chosen.id}")
    assert answer.headers["content-type"] == "application/json"
    document = json.loads(answer.content)
    assert [c["title"] for c in document["conversations"]] == ["second"]


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 422, "InvalidParameter"),
        ("format=xml", 422, "InvalidParameter"),
        ("format=csv&bom=perhaps", 422, "InvalidParameter"),
        ("format=csv&user=root", 422, "InvalidParameter"),
        ("format=csv&conversation=nothing", 404, "UnknownConversation"),
    ],
)
def test_what_cannot_be_exported_is_said_as_json(
    client: TestClient, query: str, status: int, code: str
) -> None:
    answer = client.get(f"/api/export?{query}")
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("peer", ["192.168.1.7", "2001:db8::1", "testclient"])
def test_other_machines_are_refused(services: Services, peer: str) -> None:
    answer = _client(lambda: services, peer=peer).get("/api/export?format=csv")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "LoopbackOnly"


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via"]
)
def test_what_a_proxy_hands_on_is_refused(client: TestClient, header: str) -> None:
    answer = client.get("/api/export?format=csv", headers={header: "127.0.0.1"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8501", 200),
        ("127.0.0.1", 200),
        ("[::1]:8501", 200),
        ("[::1]", 200),
        ("rebound.example:8501", 403),
        ("127.0.0.1.nip.example", 403),
        ("localhost.example:80", 403),
        ("", 403),
    ],
)
def test_only_local_names_are_answered(client: TestClient, host: str, status: int) -> None:
    answer = client.get("/api/export?format=csv", headers={"Host": host})
    assert answer.status_code == status


def test_a_bug_is_answered_without_a_stack_trace(services: Services) -> None:
    def broken() -> Services:
        raise RuntimeError("secret detail")

    answer = _client(broken).get("/api/export?format=csv")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "InternalError"
    assert "secret detail" not in answer.text


@pytest.mark.parametrize("path", ["/health", "/ready", "/api/export?format=xml", "/no-such-page"])
def test_every_answer_carries_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "SAMEORIGIN"


def test_a_reader_that_leaves_early_gives_the_database_back(
    client: TestClient, services: Services
) -> None:
    with client.stream("GET", "/api/export?format=csv") as answer:
        next(answer.iter_bytes())
    services.store.rename(
        services.user_id,
        services.store.list_conversations(services.user_id, limit=1)[0].id,
        "still writable",
    )
