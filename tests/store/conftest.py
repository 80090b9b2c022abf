import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_backend.store import Store
from tests.store.talk import Clock


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'glm.sqlite3'}"


@pytest.fixture
def sqlite_url(sqlite_template: Path, empty_sqlite_url: str, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path / "glm.sqlite3")
    return empty_sqlite_url


@pytest.fixture(params=["sqlite_url", "postgres_url"], ids=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """What uses this runs on both databases."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["empty_sqlite_url", "empty_postgres_url"], ids=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """The same, on databases that were never opened."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[Store]:
    store = Store.open(url, now=clock)
    yield store
    store.close()


@pytest.fixture
def user_id(store: Store) -> str:
    return store.ensure_user("local")
