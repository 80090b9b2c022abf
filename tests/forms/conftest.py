"""The routes of the model, on a fake one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from glm_backend.api.server import make_app
from glm_backend.services import Services
from tests.fakes import fake_services
from tests.forms.parrot import Parrot


@pytest.fixture
def parrot() -> Parrot:
    return Parrot()


@pytest.fixture
def services(tmp_path: Path, parrot: Parrot) -> Iterator[Services]:
    opened = fake_services(tmp_path / "data", parrot)
    yield opened
    opened.close()


@pytest.fixture
def client(services: Services) -> TestClient:
    return TestClient(make_app(lambda: services), raise_server_exceptions=False)
