"""Every page, in both languages, in every state that the house can be in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from streamlit.testing.v1 import AppTest

from glm_backend.engine.stats import EngineStats
from glm_backend.errors import StarterMissing, StoreReadOnly
from glm_backend.models.catalog import CATALOG
from glm_backend.models.manager import ModelRequest, ModelStatus
from glm_backend.services import Services
from glm_backend.settings import Settings
from tests.store.talk import ANSWER, finished
from tests.ui.conftest import ROOT, shown
from ui import resources
from ui.engine_figures import Look

Visit = Callable[..., AppTest]
PAGES = ("OVERVIEW", "CHAT", "SETTINGS", "HISTORY")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_draws_in_each_language(visit: Visit, page: str, language: str) -> None:
    title = {
        "en": {"OVERVIEW": "Team chat", "CHAT": "New chat", "SETTINGS": "Settings"},
        "zh": {"OVERVIEW": "团队对话", "CHAT": "新对话", "SETTINGS": "设置"},
    }[language].get(page, {"en": "History", "zh": "历史"}[language])
    assert title in shown(visit(page, language=language))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_draws_without_a_model(visit: Visit, services: Services, page: str) -> None:
    services.models.unload()
    app = visit(page)
    if page != "HISTORY":
        assert "No model is loaded" in shown(app)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_draws_while_a_model_loads(visit: Visit, services: Services, page: str) -> None:
    request = ModelRequest("smollm2-135m")
    services.models.present = ModelStatus("loading", request, "converting", 0.4)
    app = visit(page)
    if page != "HISTORY":
        assert any("converting once" in bar.proto.text for bar in app.get("progress"))


@pytest.mark.parametrize(("language", "remedy"), [("en", "pip install"), ("zh", "请运行")])
def test_a_missing_starter_model_is_explained_with_its_remedy(
    visit: Visit, services: Services, language: str, remedy: str
) -> None:
    services.models.present = ModelStatus("failed", error=StarterMissing())
    app = visit("OVERVIEW", language=language)
    assert remedy in app.error[0].value
    app.button(key="model_retry").click().run()
    assert services.models.asked[-1] == services.default_request


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_when_another_server_answers(
    visit: Visit, services: Services, page: str, tmp_path: Path
) -> None:
    url = "http://127.0.0.1:9/v1"
    services.settings = Settings(data_dir=tmp_path / "data", upstream_url=url)
    app = visit(page)
    if page != "HISTORY":
        assert "another server" in shown(app)
    if page == "SETTINGS":
        with pytest.raises(KeyError):
            app.button(key="settings_load")


def test_a_database_that_does_not_open_is_tried_again_at_the_next_visit(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Services:
        raise StoreReadOnly(database="glm.sqlite3")

    opened = resources.open_services
    monkeypatch.setattr(resources, "open_services", broken)
    resources.load_services.clear()
    app = AppTest.from_file(str(ROOT / "ui" / "router.py"), default_timeout=60).run()
    assert "read-only" in app.error[0].value
    assert not app.exception
    monkeypatch.setattr(resources, "open_services", opened)


ENGINE_EN = """At work
2 being answered, at most 8 at once · 3 waiting
Conversations in memory: 0.10 GB of 4.00 GB; 5 kept for their next turn.
30 tokens of 4 prompts were there already and not read again.
15 tokens were guessed right from the text before them (75% of the guesses).
Threads: 2 · Kernels: OneDnnInt8"""
ENGINE_ZH = """运行情况
正在回答 2 个，最多同时 8 个 · 排队 3 个
内存中的对话：0.10 GB / 4.00 GB；为下一轮保留了 5 个。
4 个提示中有 30 个词元已在内存中，无需重读。
从前文猜中了 15 个词元（占猜测的 75%）。
线程：2 · 内核：OneDnnInt8"""


@pytest.mark.parametrize(("language", "said"), [("en", ENGINE_EN), ("zh", ENGINE_ZH)])
def test_what_the_engine_does_is_on_the_overview(
    visit: Visit, services: Services, language: str, said: str
) -> None:
    model = services.models.model  # type: ignore[attr-defined]
    model.kernels, model.kv_bytes_per_token = ["OneDnnInt8"], 1_000_000
    model.figures = EngineStats(
        2, 3, 8, kv_tokens=100, kv_limit=4000, kept=5, threads=2, reused_tokens=30, reuses=4,
        guessed_tokens=20, guessed_right=15,
    )  # fmt: skip
    app = visit("OVERVIEW", language=language)
    for line in said.splitlines():
        assert line in shown(app)


def test_an_idle_engine_is_said_in_few_words(visit: Visit, services: Services) -> None:
    app = visit("OVERVIEW")
    assert "0 being answered, at most 8 at once · 0 waiting" in shown(app)
    assert "guessed" not in shown(app)
    services.models.unload()
    assert "At work" not in shown(visit("OVERVIEW"))


def test_the_speed_is_that_since_the_look_before() -> None:
    assert Look(12.0, 150).speed_since(Look(10.0, 100)) == 25.0
    assert Look(12.0, 150).speed_since(None) is None
    assert Look(12.0, 3).speed_since(Look(10.0, 100)) is None  # another model meanwhile


def test_recent_conversations_are_on_the_overview(visit: Visit, answered: str) -> None:
    links = visit("OVERVIEW").get("page_link")
    assert any("an old question" in link.proto.label for link in links)


def test_what_fits_this_machine_is_a_chart_and_a_table(visit: Visit) -> None:
    app = visit("OVERVIEW")
    assert len(app.get("vega_lite_chart")) == 1
    table = app.dataframe[0].value
    assert len(table) == len(CATALOG)
    assert table.iloc[0, -1].startswith("✓")
    assert table.iloc[1, 3].startswith("✗")


@pytest.mark.parametrize("page", ["OVERVIEW", "SETTINGS"])
def test_a_page_says_that_the_database_is_away_and_draws_the_rest(
    visit: Visit, services: Services, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = visit(page)

    def away(*_: object, **__: object) -> None:
        raise StoreReadOnly(database="glm.sqlite3")

    for name in ("list_conversations", "user_settings", "presets", "speeds"):
        monkeypatch.setattr(services.store, name, away)
    app.run()
    assert not app.exception
    assert r"read\-only" in app.error[0].value
    assert len(app.subheader) > 1


@pytest.mark.parametrize("source", ["chatgpt", "another program", "glm-chat"])
def test_what_came_from_elsewhere_is_read_on_every_page(
    visit: Visit, services: Services, source: str
) -> None:
    """With a model of no known precision, and a form of any name."""
    conversation = services.store.create_conversation(services.user_id, title="imported")
    _, answer = services.store.begin_turn(
        services.user_id, conversation.id, None, "q", replace(ANSWER, quantization="remote"), "me"
    )
    services.store.write_answers([finished(answer, "")])
    with services.store._database.writing() as connection:
        connection.execute(text("update conversations set source = :source"), {"source": source})
    for page in ("CHAT", "HISTORY"):
        app = visit(page, c=conversation.id)
        assert "another server" in shown(app)
    assert "another server" in shown(visit("HISTORY"))
