"""The pages on Streamlit's own test bench, over a real store and a fake model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.services import Services
from tests.fakes import ScriptedModel, fake_services
from ui import importing, pages, resources

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 60


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """The services behind the pages."""
    opened = fake_services(tmp_path / "data", ScriptedModel())
    monkeypatch.setattr(resources, "open_services", lambda: opened)
    resources.load_services.clear()
    importing.begun.clear()
    resources.load_services()
    yield opened
    resources.load_services.clear()


@pytest.fixture
def visit(services: Services) -> Callable[..., AppTest]:
    """Opens a page by its name in ui.pages, in one of the two languages."""

    def visit_(page: str, *, language: str = "en", c: str = "") -> AppTest:
        services.store.set_user_settings(services.user_id, {"language": language})
        app = AppTest.from_file(str(ROOT / "ui" / "router.py"), default_timeout=_TIMEOUT_S)
        app.run()
        if c:
            app.query_params["c"] = c
        if page != "OVERVIEW":
            app.switch_page(str(getattr(pages, page)))
            app.run()
        assert not app.exception
        return app

    return visit_


@pytest.fixture
def answered(services: Services) -> str:
    """A conversation of one question and its answer."""
    conversation = services.store.create_conversation(services.user_id).id
    services.chat.send(services.user_id, conversation, "an old question").wait_saved(10)
    return conversation


def shown(app: AppTest) -> str:
    """Everything that a page says, for looking texts up in it."""
    kinds = (app.title, app.header, app.subheader, app.markdown, app.caption, app.error)
    kinds += (app.warning, app.info, app.success)
    return "\n".join(element.value for kind in kinds for element in kind)
