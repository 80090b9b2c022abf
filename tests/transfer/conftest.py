import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from glm_backend.store import Store
from tests.store.talk import Clock


@pytest.fixture
def store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(sqlite_template, tmp_path / "glm.sqlite3")
    store = Store.open(f"sqlite:///{tmp_path / 'glm.sqlite3'}", now=Clock())
    yield store
    store.close()


@pytest.fixture
def user_id(store: Store) -> str:
    return store.ensure_user("local")
