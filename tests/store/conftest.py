from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_backend.store import Store
from tests.store.talk import Clock


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'glm.sqlite3'}"


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
