"""The forms as they were recorded of the original programs, where the recordings are at hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from glm_backend.api.server import make_app
from glm_backend.services import Services
from tests.forms.parrot import Parrot, events_in

GOLDEN = Path(__file__).parents[3] / "shared" / "fixtures" / "forms_golden.json"


def recorded(form: str) -> list[Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))[form] if GOLDEN.is_file() else []


@pytest.mark.parametrize("record", recorded("api.py"), ids=lambda r: json.dumps(r["request"]))
def test_recorded_requests_of_the_original_api(client: TestClient, record: Any) -> None:
    body = record["request"]
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    answer = client.request(record["method"], record["url"], content=content)
    if record["status"] == 500:
        assert answer.status_code == 422
        return
    assert answer.status_code == record["status"]
    if record["status"] == 200 and record["url"] == "/":
        values = answer.json()
        assert time.strptime(values["time"], "%Y-%m-%d %H:%M:%S")
        assert values | {"time": record["body"]["time"]} == record["body"]


@pytest.mark.parametrize(
    "record",
    [r for r in recorded("openai_api.py") if r["method"] == "POST"],
    ids=lambda r: json.dumps(r["request"]),
)
def test_recorded_requests_of_the_original_openai_api(
    services: Services, parrot: Parrot, record: Any
) -> None:
    parrot.family = "chatglm2"
    parrot.recorded_stream = bool(record["request"].get("stream"))
    client = TestClient(make_app(lambda: services), raise_server_exceptions=False)
    answer = client.post(record["url"], json=record["request"])
    assert answer.status_code == {500: 422}.get(record["status"], record["status"])
    if record["status"] != 200:
        assert answer.json()["detail"]
        return
    if record["request"].get("stream"):
        assert answer.headers["content-type"] == record["content_type"]
        theirs, ours = events_in(record["body"]), events_in(answer.text)
        assert [chunk["choices"] for chunk in ours] == [chunk["choices"] for chunk in theirs]
        assert set(theirs[0]) <= set(ours[0])
        return
    values = answer.json()
    assert set(record["body"]) <= set(values)
    assert values["model"] == record["body"]["model"]
    (theirs,), (ours,) = record["body"]["choices"], values["choices"]
    assert ours.pop("index") == theirs.pop("index")
    assert ours == theirs


def test_the_recorded_preflight(client: TestClient) -> None:
    asked = {"Origin": "http://x", "Access-Control-Request-Method": "POST"}
    headers = client.options("/v1/chat/completions", headers=asked).headers
    assert headers["access-control-allow-origin"] == "http://x"
    assert headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert headers["access-control-max-age"] == "600"
