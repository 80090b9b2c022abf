"""GET /metrics: what Prometheus would read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from glm_backend.api.metrics import metrics_route
from glm_backend.api.security import require_loopback
from glm_backend.api.server import make_app
from glm_backend.engine.stats import EngineStats, Histogram
from glm_backend.errors import StoreReadOnly
from glm_backend.services import Services
from glm_backend.testing import FakeModel
from tests.fakes import fake_services


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    opened = fake_services(tmp_path / "data", FakeModel())
    yield opened
    opened.close()


@pytest.fixture
def client(services: Services) -> TestClient:
    return TestClient(make_app(lambda: services), raise_server_exceptions=False)


def values(client: TestClient) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_engines_figures_are_what_is_read(client: TestClient, services: Services) -> None:
    services.models.model.figures = EngineStats(  # type: ignore[attr-defined]
        running=2,
        waiting=3,
        max_running=8,
        kv_tokens=100,
        kv_limit=4000,
        kept=5,
        threads=2,
        prompt_tokens=70,
        completion_tokens=90,
        reused_tokens=30,
        reuses=4,
        guessed_tokens=20,
        guessed_right=15,
        ends={"stop": 6, "refused": 1},
        first_token=Histogram((0.1, 1.0), (1, 2, 3), 12.5),
    )
    found = values(client)
    counted = {n: v for n, v in found.items() if n.startswith("glm_") and "_seconds" not in n}
    assert counted == {
        "glm_chat_answers_running": 0,
        "glm_model_loaded": 1,
        "glm_model_info device=cpu family= name=fake quantization=none": 1,
        "glm_requests_running": 2,
        "glm_requests_waiting": 3,
        "glm_requests_running_limit": 8,
        "glm_kv_tokens": 100,
        "glm_kv_tokens_limit": 4000,
        "glm_kept_conversations": 5,
        "glm_threads": 2,
        "glm_prompt_tokens_total": 70,
        "glm_prompt_tokens_reused_total": 30,
        "glm_prefix_hits_total": 4,
        "glm_completion_tokens_total": 90,
        "glm_guessed_tokens_total": 20,
        "glm_guessed_tokens_right_total": 15,
        "glm_requests_total end=stop": 6,
        "glm_requests_total end=length": 0,
        "glm_requests_total end=cancelled": 0,
        "glm_requests_total end=failed": 0,
        "glm_requests_total end=refused": 1,
    }  # fmt: skip
    first = "glm_time_to_first_token_seconds"
    assert [found[f"{first}_bucket le={bound}"] for bound in ("0.1", "1.0", "+Inf")] == [1, 3, 6]
    assert (found[f"{first}_sum"], found[f"{first}_count"]) == (12.5, 6)


def test_without_a_model_only_the_process_is_told_of(
    client: TestClient, services: Services
) -> None:
    services.models.unload()
    found = values(client)
    assert found["glm_model_loaded"] == 0
    assert "glm_requests_running" not in found


def test_beside_the_pages_only_this_machine_may_read(services: Services) -> None:
    app = Starlette(routes=[metrics_route(lambda: services, guard=require_loopback)])
    for address, status in (("127.0.0.1", 200), ("192.168.1.7", 403)):
        asked = TestClient(app, base_url="http://127.0.0.1:8501", client=(address, 5000))
        assert asked.get("/metrics").status_code == status


def test_a_database_that_does_not_open_is_said() -> None:
    def broken() -> Services:
        raise StoreReadOnly(database="glm.sqlite3")

    answer = TestClient(make_app(broken), raise_server_exceptions=False).get("/metrics")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "StoreReadOnly")
