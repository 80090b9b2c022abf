"""What the buttons of the settings page do. They run before the page is drawn anew."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from glm_backend.errors import InvalidParameter, Phrase, UnknownPreset
from glm_backend.models.catalog import CATALOG
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.models.manager import ModelRequest
from glm_backend.services import Services
from glm_backend.store.values import Preset
from ui import generation
from ui.frame import attempt
from ui.labels import t

PLACE = "settings"
#: The choice that stands for a path.
FOLDER = "folder"


def takes_chatglm_options(choice: str) -> bool:
    """Whether the model chosen on the page is of the ChatGLM family, or may be."""
    return choice == FOLDER or CATALOG[choice].family in FAMILIES


class GenerationActions:
    """Saving, resetting and naming the generation parameters."""

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._user_id = services.user_id

    def fill(self, values: Mapping[str, object]) -> None:
        """Puts values into the fields of the form."""
        for name, value in values.items():
            shown = value
            if name == "seed":
                shown = "" if value is None else str(value)
            st.session_state[f"settings_{name}"] = shown

    def typed(self) -> dict[str, object]:
        """What the form holds now; raises InvalidParameter."""
        values = {name: st.session_state[f"settings_{name}"] for name in generation.FIELDS}
        values["seed"] = generation.read_seed(values["seed"])
        return generation.checked(values)

    def save(self) -> None:
        if attempt(PLACE, self._save):
            st.toast(t("settings.saved"))

    def reset(self) -> None:
        defaults = {name: generation.DEFAULTS[name] for name in generation.FIELDS}
        if attempt(PLACE, self._store.set_user_settings, self._user_id, dict.fromkeys(defaults)):
            self.fill(defaults)
            st.toast(t("settings.was_reset"))

    def save_preset(self) -> None:
        if attempt(PLACE, self._save_preset):
            st.session_state["settings_preset_name"] = ""
            st.toast(t("settings.preset_saved"))

    def apply_preset(self) -> None:
        """Fills the form with a preset and saves it."""
        if attempt(PLACE, self._apply_preset):
            st.toast(t("settings.saved"))

    def delete_preset(self) -> None:
        """Which can be taken back until the next one."""
        attempt(PLACE, self._delete_preset)

    def undo_delete(self) -> None:
        deleted: Preset = st.session_state.pop("settings_preset_deleted")
        attempt(PLACE, self._store.save_preset, self._user_id, deleted.name, deleted.values)

    def set_language(self) -> None:
        chosen = st.session_state["settings_language"]
        value = None if chosen == "auto" else chosen
        attempt(PLACE, self._store.set_user_settings, self._user_id, {"language": value})

    def _save(self) -> None:
        self._store.set_user_settings(self._user_id, self.typed())

    def _save_preset(self) -> None:
        name = st.session_state["settings_preset_name"]
        self._store.save_preset(self._user_id, name, self.typed())
        st.session_state["settings_preset"] = " ".join(name.split())

    def _apply_preset(self) -> None:
        preset = self._preset()
        values, _ = generation.readable_values(preset.values)
        self._store.set_user_settings(self._user_id, values)
        self.fill(values)

    def _delete_preset(self) -> None:
        preset = self._preset()
        self._store.delete_preset(self._user_id, preset.name)
        st.session_state["settings_preset_deleted"] = preset

    def _preset(self) -> Preset:
        """The one that is chosen; another page may have deleted it."""
        name = st.session_state["settings_preset"]
        for preset in self._store.presets(self._user_id):
            if preset.name == name:
                return preset
        raise UnknownPreset(name=name)


class ModelActions:
    """Loading and unloading."""

    def __init__(self, services: Services) -> None:
        self._models = services.models
        self._settings = services.settings

    def request(self) -> ModelRequest:
        """What the fields ask for; raises InvalidParameter for a folder without a path."""
        model = st.session_state["settings_model"]
        if model == FOLDER:
            model = (st.session_state.get("settings_folder") or "").strip()
            if not model:
                allowed = Phrase("the path of a folder, or owner/name")
                raise InvalidParameter(name=Phrase("folder"), value="''", allowed=allowed)
        may_be_chatglm = takes_chatglm_options(st.session_state["settings_model"])
        typed = st.session_state if may_be_chatglm else {}
        return ModelRequest(
            model=model,
            quantization=st.session_state["settings_quantization"],
            device=st.session_state["settings_device"],
            dtype=self._settings.dtype,
            max_context=self._settings.max_context,
            family=typed.get("settings_family") or "",
            ptuning=(typed.get("settings_ptuning") or "").strip(),
        )

    def load(self) -> None:
        attempt(PLACE, lambda: self._models.load(self.request()))

    def unload(self) -> None:
        attempt(PLACE, self._models.unload)
