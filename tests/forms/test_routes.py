"""Who may ask the routes of the model, and what else there is."""

from __future__ import annotations

import threading

import httpx2
from starlette.applications import Starlette
from starlette.testclient import TestClient

from glm_backend.api.openai import openai_routes
from glm_backend.api.original import original_route
from glm_backend.api.security import require_loopback
from glm_backend.api.server import make_app
from glm_backend.services import Services
from glm_backend.testing import FakeModel
from tests.forms.parrot import ask
from tests.forms.servers import served


def test_beside_the_pages_only_this_machine_may_ask(services: Services) -> None:
    routes = [
        original_route(lambda: services, guard=require_loopback),
        openai_routes(lambda: services, guard=require_loopback),
    ]
    app = Starlette(routes=routes)
    near = TestClient(app, base_url="http://127.0.0.1:8501", client=("127.0.0.1", 5000))
    far = TestClient(app, base_url="http://127.0.0.1:8501", client=("192.168.1.7", 5000))
    for client, status in ((near, 200), (far, 403)):
        assert client.get("/v1/models").status_code == status
        assert ask(client).status_code == status
        assert client.post("/", json={"prompt": "x"}).status_code == status
    assert near.options("/v1/models").status_code == 405
    # A page of another site needs no leave to send, and could keep the model busy.
    body = b'{"prompt": "x", "messages": [{"role": "user", "content": "x"}]}'
    for path in ("/", "/v1/chat/completions"):
        answer = near.post(path, content=body, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403


def test_paths_and_methods_that_do_not_exist(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 405
    assert answer.json()["detail"] == "Method Not Allowed"
    assert client.get("/nothing").json()["error"]["code"] == 404
    assert client.get("/docs").headers["content-type"].startswith("text/html")
    assert client.get("/health").status_code == 200


def test_an_answer_does_not_take_the_threads_of_the_others(services: Services) -> None:
    slow = FakeModel(["word "] * 3, delay_s=0.5)
    services.models.model = slow  # type: ignore[attr-defined]
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    with served(make_app(lambda: services)) as address, httpx2.Client(timeout=30) as client:
        statuses: list[int] = []

        def one() -> None:
            answer = httpx2.post(f"{address}/v1/chat/completions", json=body, timeout=30)
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=one) for _ in range(45)]
        for thread in threads:
            thread.start()
        assert client.get(f"{address}/ready").status_code == 200
        for thread in threads:
            thread.join()
    assert statuses == [200] * 45
