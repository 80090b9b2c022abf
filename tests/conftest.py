"""What several rooms share: the starter model, a PostgreSQL and a Chromium, real and once a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, expect, sync_playwright

from glm_backend.models.loader import load
from glm_backend.models.model import LoadedModel
from glm_backend.store import Store
from tests.browser.chromium import PATIENCE_MS, launch
from tests.postgres import PostgresServer

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The system's Chromium, else the one that Playwright installed."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def model_dir() -> Path:
    """Where converted models are kept between runs."""
    return ROOT / ".cache" / "models"


@pytest.fixture(scope="session")
def starter(model_dir: Path) -> LoadedModel:
    """SmolLM2-135M-Instruct in float32."""
    torch.set_num_threads(1)  # two would wait for each other beside a browser
    return load("smollm2-135m", model_dir=model_dir)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database with all tables, to be copied: ten times as fast as to make them."""
    file = tmp_path_factory.mktemp("template") / "glm.sqlite3"
    Store.open(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server; a test that kills it starts it again."""
    server = PostgresServer().start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    """The name of a database with all tables, to be copied."""
    return postgres.template(lambda url: Store.open(url).close())


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database of its own for one test."""
    url = postgres.new_database(postgres_template)
    yield url
    postgres.drop(url)


@pytest.fixture
def empty_postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """The same without a table."""
    url = postgres.new_database()
    yield url
    postgres.drop(url)
