"""The settings page: what is typed, what is stored, and what may not be."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from glm_backend.engine.stats import EngineStats
from glm_backend.errors import Cancelled, ModelMissing, StoreReadOnly
from glm_backend.models.manager import ModelRequest
from glm_backend.services import Services
from tests.ui.conftest import shown

Visit = Callable[..., AppTest]


@pytest.fixture
def page(visit: Visit) -> AppTest:
    return visit("SETTINGS")


def _stored(services: Services) -> dict[str, object]:
    return services.store.user_settings(services.user_id)


def test_parameters_are_saved_for_the_user(page: AppTest, services: Services) -> None:
    page.slider(key="settings_temperature").set_value(0.25)
    page.slider(key="settings_top_p").set_value(0.5)
    page.slider(key="settings_min_p").set_value(0.05)
    page.slider(key="settings_typical_p").set_value(0.9)
    page.slider(key="settings_repetition_penalty").set_value(1.1)
    page.number_input(key="settings_top_k").set_value(40)
    page.number_input(key="settings_max_new_tokens").set_value(256)
    page.text_input(key="settings_seed").set_value("42")
    page.text_area(key="settings_system_prompt").set_value("Be brief.").run()
    assert "Not saved yet" in shown(page)
    page.button(key="settings_save").click().run()
    assert "Not saved yet" not in shown(page)
    parameters = services.chat.parameters(services.user_id)
    assert parameters.sampling.temperature == 0.25
    assert parameters.sampling.top_p == 0.5
    assert (parameters.sampling.min_p, parameters.sampling.typical_p) == (0.05, 0.9)
    assert parameters.sampling.repetition_penalty == 1.1
    assert parameters.sampling.top_k == 40
    assert parameters.sampling.max_new_tokens == 256
    assert parameters.sampling.seed == 42
    assert parameters.system_prompt == "Be brief."


def test_a_chatglm_model_has_the_originals_sliders(visit: Visit, services: Services) -> None:
    services.models.model.family = "chatglm2"  # type: ignore[attr-defined]
    services.models.load(ModelRequest("chatglm2-6b"))
    page = visit("SETTINGS")
    length, top_p = page.slider(key="settings_max_length"), page.slider(key="settings_top_p")
    assert (length.min, length.max, length.step, length.value) == (0, 32_768, 1, 8192)
    assert (top_p.max, top_p.value) == (1.0, 0.8)
    assert page.slider(key="settings_temperature").value == 0.8
    assert not [box for box in page.number_input if box.key == "settings_max_new_tokens"]
    length.set_value(600).run()
    page.button(key="settings_save").click().run()
    assert services.chat.parameters(services.user_id).limits("chatglm2", 8192) == (600, 600, 300)
    assert services.chat.parameters(services.user_id).limits("llama", 8192) == (8192, 1024, 1024)


def test_reset_goes_back_to_the_defaults(page: AppTest, services: Services) -> None:
    page.slider(key="settings_temperature").set_value(1.5).run()
    page.button(key="settings_save").click().run()
    page.button(key="settings_reset").click().run()
    assert page.slider(key="settings_temperature").value == 0.8
    assert _stored(services) == {"language": "en"}


@pytest.mark.parametrize("seed", ["-1", "one", str(2**63), "1.5"])
def test_a_seed_that_may_not_be_is_refused(page: AppTest, services: Services, seed: str) -> None:
    page.text_input(key="settings_seed").set_value(seed).run()
    page.button(key="settings_save").click().run()
    assert "seed" in page.error[0].value
    assert "seed" not in _stored(services)


def test_the_largest_seed_is_taken(page: AppTest, services: Services) -> None:
    page.text_input(key="settings_seed").set_value(str(2**63 - 1)).run()
    page.button(key="settings_save").click().run()
    assert _stored(services)["seed"] == 2**63 - 1


def test_stored_values_out_of_range_are_corrected_on_the_page(
    visit: Visit, services: Services
) -> None:
    services.store.set_user_settings(
        services.user_id, {"temperature": 9, "top_k": "many", "seed": -5, "system_prompt": 7}
    )
    page = visit("SETTINGS")
    assert len(page.warning) == 4
    assert page.slider(key="settings_temperature").value == 2.0
    page.button(key="settings_save").click().run()
    assert not page.warning
    assert _stored(services)["temperature"] == 2.0


def test_presets_are_saved_applied_and_deleted(page: AppTest, services: Services) -> None:
    page.slider(key="settings_temperature").set_value(0.1)
    page.text_input(key="settings_preset_name").set_value("Sober").run()
    page.button(key="settings_preset_save").click().run()
    page.button(key="settings_reset").click().run()
    assert page.slider(key="settings_temperature").value == 0.8
    page.selectbox(key="settings_preset").set_value("Sober").run()
    page.button(key="settings_preset_apply").click().run()
    assert page.slider(key="settings_temperature").value == 0.1
    assert _stored(services)["temperature"] == 0.1
    page.button(key="settings_preset_delete").click().run()
    assert services.store.presets(services.user_id) == []


def test_a_preset_needs_a_name(page: AppTest) -> None:
    page.button(key="settings_preset_save").click().run()
    assert "preset" in page.error[0].value


def test_a_model_is_loaded_as_chosen_and_let_go(page: AppTest, services: Services) -> None:
    page.selectbox(key="settings_model").set_value("chatglm3-6b").run()
    page.segmented_control(key="settings_quantization").set_value("int4").run()
    page.button(key="settings_load").click().run()
    asked = services.models.asked[-1]
    assert (asked.model, asked.quantization, asked.device) == ("chatglm3-6b", "int4", "auto")
    page.button(key="settings_unload").click().run()
    assert services.models.status().state == "empty"
    assert page.button(key="settings_unload").disabled


@pytest.mark.parametrize(
    ("language", "said"), [("en", "5 answers are being written or wait"), ("zh", "有 5 个回答")]
)
def test_how_many_answers_unloading_would_stop_is_said_before(
    visit: Visit, services: Services, language: str, said: str
) -> None:
    assert not visit("SETTINGS").warning
    services.models.model.figures = EngineStats(2, 3, 8)  # type: ignore[attr-defined]
    assert said in visit("SETTINGS", language=language).warning[0].value


def test_a_folder_is_loaded_by_its_path(page: AppTest, services: Services) -> None:
    before = len(services.models.asked)
    page.selectbox(key="settings_model").set_value("folder").run()
    page.button(key="settings_load").click().run()
    assert "folder" in page.error[0].value
    assert len(services.models.asked) == before
    page.text_input(key="settings_folder").set_value(" /models/mine ").run()
    page.button(key="settings_load").click().run()
    assert services.models.asked[-1].model == "/models/mine"


def test_family_and_prefix_can_be_said_where_a_folder_may_need_it(
    page: AppTest, services: Services
) -> None:
    assert not [box for box in page.selectbox if box.key == "settings_family"]
    page.selectbox(key="settings_model").set_value("folder").run()
    page.text_input(key="settings_folder").set_value("/models/mine")
    page.selectbox(key="settings_family").set_value("chatglm2")
    page.text_input(key="settings_ptuning").set_value(" /models/prefix ").run()
    page.button(key="settings_load").click().run()
    request = services.models.status().request
    assert request is not None
    assert (request.model, request.family, request.ptuning) == (
        "/models/mine",
        "chatglm2",
        "/models/prefix",
    )


def test_what_does_not_fit_is_said_before_it_is_loaded(page: AppTest) -> None:
    page.selectbox(key="settings_model").set_value("chatglm3-6b").run()
    assert "only 8.00 GB are free" in page.get("progress")[-1].proto.text


def test_measured_speeds_stand_beside_the_memory(visit: Visit, services: Services) -> None:
    services.models.model.name = "SmolLM2 135M Instruct"
    conversation = services.store.create_conversation(services.user_id).id
    services.chat.send(services.user_id, conversation, "one two three").wait_saved(10)
    table = visit("SETTINGS").dataframe[0].value
    assert list(table["answers"]) == [1, 0, 0]
    assert table["speed"][0] > 0
    assert table["memory"][0] > table["memory"][1] > table["memory"][2]


def test_the_language_is_kept(page: AppTest, services: Services) -> None:
    page.segmented_control(key="settings_language").set_value("zh").run()
    assert _stored(services)["language"] == "zh"
    assert "回答方式" in shown(page)


def test_a_preset_that_was_deleted_comes_back(page: AppTest, services: Services) -> None:
    services.store.save_preset(services.user_id, "brief", {"system_prompt": "Be brief."})
    page.run()
    page.button(key="settings_preset_delete").click().run()
    assert services.store.presets(services.user_id) == []
    assert "Deleted: brief" in shown(page)
    page.button(key="settings_undo_preset").click().run()
    (preset,) = services.store.presets(services.user_id)
    assert (preset.name, preset.values) == ("brief", {"system_prompt": "Be brief."})


@pytest.mark.parametrize("do", ["apply", "delete"])
def test_a_preset_that_another_page_deleted_is_said_to_be_gone(
    page: AppTest, services: Services, do: str
) -> None:
    services.store.save_preset(services.user_id, "brief", {"temperature": 0.1})
    page.run()
    services.store.delete_preset(services.user_id, "brief")
    page.button(key=f"settings_preset_{do}").click().run()
    assert not page.exception
    assert "no preset named brief" in page.error[0].value


def test_what_a_preset_took_the_place_of_comes_back(page: AppTest, services: Services) -> None:
    """Both what was stored and what was typed since."""
    services.store.save_preset(services.user_id, "brief", {"system_prompt": "Be brief."})
    page.text_area(key="settings_system_prompt").set_value("Be kind.").run()
    page.button(key="settings_save").click().run()
    page.text_input(key="settings_seed").set_value("7").run()
    page.button(key="settings_preset_apply").click().run()
    assert page.text_area(key="settings_system_prompt").value == "Be brief."
    assert page.text_input(key="settings_seed").value == ""
    assert "Applied: brief" in shown(page)
    page.button(key="settings_undo_form").click().run()
    assert _stored(services)["system_prompt"] == "Be kind."
    assert page.text_area(key="settings_system_prompt").value == "Be kind."
    assert page.text_input(key="settings_seed").value == "7"
    assert "Not saved yet" in shown(page)
    assert "Applied: brief" not in shown(page)


def test_what_the_defaults_took_the_place_of_comes_back(page: AppTest, services: Services) -> None:
    page.text_area(key="settings_system_prompt").set_value("Be kind.").run()
    page.button(key="settings_save").click().run()
    before = _stored(services)
    page.slider(key="settings_temperature").set_value(1.5).run()
    page.button(key="settings_reset").click().run()
    assert page.text_area(key="settings_system_prompt").value == ""
    assert "Back to the defaults" in shown(page)
    page.button(key="settings_undo_form").click().run()
    assert _stored(services) == before
    assert page.slider(key="settings_temperature").value == 1.5
    assert page.text_area(key="settings_system_prompt").value == "Be kind."


def test_a_default_that_was_typed_comes_back_as_it_was(page: AppTest) -> None:
    page.slider(key="settings_temperature").set_value(1.5).run()
    page.button(key="settings_save").click().run()
    page.slider(key="settings_temperature").set_value(0.8).run()
    page.button(key="settings_reset").click().run()
    page.button(key="settings_undo_form").click().run()
    assert page.slider(key="settings_temperature").value == 0.8
    assert "Not saved yet" in shown(page)


def test_saving_ends_the_way_back(page: AppTest) -> None:
    page.button(key="settings_reset").click().run()
    page.button(key="settings_save").click().run()
    assert "Back to the defaults" not in shown(page)


def test_a_preset_that_was_replaced_comes_back(page: AppTest, services: Services) -> None:
    services.store.save_preset(services.user_id, "brief", {"system_prompt": "Be brief."})
    page.run()
    page.text_area(key="settings_system_prompt").set_value("Be kind.")
    page.text_input(key="settings_preset_name").set_value(" brief ").run()
    page.button(key="settings_preset_save").click().run()
    (preset,) = services.store.presets(services.user_id)
    assert preset.values["system_prompt"] == "Be kind."
    assert "Replaced: brief" in shown(page)
    page.button(key="settings_undo_preset").click().run()
    (preset,) = services.store.presets(services.user_id)
    assert preset.values == {"system_prompt": "Be brief."}
    page.text_input(key="settings_preset_name").set_value("another").run()
    page.button(key="settings_preset_save").click().run()
    assert "Replaced" not in shown(page)


def test_what_another_tab_saved_is_shown_where_nothing_was_typed(
    page: AppTest, services: Services
) -> None:
    page.button(key="settings_reset").click().run()
    page.slider(key="settings_top_p").set_value(0.5).run()
    saved = {"temperature": 1.5, "seed": 42, "top_p": 0.9}
    services.store.set_user_settings(services.user_id, saved)
    page.run()
    assert page.slider(key="settings_temperature").value == 1.5
    assert page.text_input(key="settings_seed").value == "42"
    assert page.slider(key="settings_top_p").value == 0.5
    assert "Back to the defaults" not in shown(page), "it would undo what the other tab saved"
    page.button(key="settings_save").click().run()
    assert _stored(services).items() >= {"temperature": 1.5, "seed": 42, "top_p": 0.5}.items()
    services.store.set_user_settings(services.user_id, {"top_p": 0.7, "seed": None})
    page.run()
    assert page.slider(key="settings_top_p").value == 0.7
    assert page.text_input(key="settings_seed").value == ""
    assert "Not saved yet" not in shown(page)


def _order(page: AppTest) -> list[object]:
    """Keys of the widgets, and types of what else there is, from top to bottom."""
    return [getattr(node, "key", None) or node.type for node in page.main]


def test_each_refusal_is_said_above_its_buttons_and_moves_nothing(
    page: AppTest, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreReadOnly(database="glm.sqlite3")

    page.selectbox(key="settings_model").set_value("folder").run()
    page.text_input(key="settings_folder").set_value("").run()
    page.text_input(key="settings_seed").set_value("one").run()
    monkeypatch.setattr(services.store, "set_user_settings", away)
    blocks = page.main.children.keys()
    for button, above in (
        ("settings_save", "settings_system_prompt"),
        ("settings_preset_save", "settings_reset"),
        ("settings_load", "settings_ptuning"),
    ):
        page.button(key=button).click().run()
        order = _order(page)
        assert order.count("error") == 1
        assert order.index(above) < order.index("error") < order.index(button)
        assert page.main.children.keys() == blocks
    page.segmented_control(key="settings_language").set_value("zh").run()
    order = _order(page)
    assert order.count("error") == 1
    assert order.index("settings_unload") < order.index("error") < order.index("settings_language")


def test_a_corrected_value_moves_nothing(visit: Visit, services: Services) -> None:
    blocks = visit("SETTINGS").main.children.keys()
    services.store.set_user_settings(services.user_id, {"temperature": 9})
    assert visit("SETTINGS").main.children.keys() == blocks


def test_a_load_is_followed_above_its_button(page: AppTest, services: Services) -> None:
    services.models.present = replace(services.models.present, state="loading", stage="reading")
    order = _order(page.run())
    assert order.index("settings_device") < order.index("model_cancel")
    assert order.index("model_cancel") < order.index("settings_load")


def test_a_load_that_failed_is_told_on_settings_while_the_old_model_answers(
    visit: Visit, services: Services
) -> None:
    error = ModelMissing(model="mistyped", where="/models", remedy="Check it.")
    services.models.present = replace(services.models.present, error=error)
    for other in ("OVERVIEW", "CHAT"):
        app = visit(other)
        assert "is ready" in shown(app)
        assert not app.error
        assert "model_retry" not in _order(app)
    page = visit("SETTINGS")
    assert "mistyped" in page.error[0].value
    order = _order(page)
    assert "model_retry" not in order
    assert order.index("error") < order.index("settings_load")
    page.button(key="model_dismiss").click().run()
    assert not page.error
    assert services.models.status().error is None
    assert "is ready" in shown(page)


def test_a_load_that_was_cancelled_is_no_error(visit: Visit, services: Services) -> None:
    services.models.present = replace(services.models.present, error=Cancelled(what="loading"))
    assert not visit("SETTINGS").error


@pytest.mark.parametrize(("language", "here"), [("en", "above"), ("zh", "上方")])
def test_settings_sends_nobody_to_settings(visit: Visit, language: str, here: str) -> None:
    assert here in shown(visit("SETTINGS", language=language))
    assert here not in shown(visit("OVERVIEW", language=language))


def test_the_columns_of_the_speeds_are_narrow(page: AppTest) -> None:
    """Wider ones push the last out of sight at 1280 pixels."""
    columns = json.loads(page.dataframe[0].proto.columns)
    widths = [column["width"] for column in columns.values() if "width" in column]
    assert len(widths) == 4
    assert sum(widths) <= 376
