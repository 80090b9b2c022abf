"""What the buttons of the settings page do. They run before the page is drawn anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

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

#: The parts of the page, each of which says beside its buttons what was refused there.
ANSWERS = "settings answers"
PRESETS = "settings presets"
MODEL = "settings model"
LANGUAGE = "settings language"
#: The choice that stands for a path.
FOLDER = "folder"


def takes_chatglm_options(choice: str) -> bool:
    """Whether the model chosen on the page is of the ChatGLM family, or may be."""
    return choice == FOLDER or CATALOG[choice].family in FAMILIES


@dataclass(frozen=True, slots=True)
class Undo:
    """The way back from what was done at `place`. name: of the preset that it was done with."""

    place: str
    done: str
    bring_back: Callable[[], object]
    name: str = ""


class GenerationActions:
    """Saving, resetting and naming the generation parameters.

    The last change of the form and the last one of a preset can each be taken back.
    """

    def __init__(self, services: Services) -> None:
        self._store = services.store
        self._user_id = services.user_id

    def keep_up(self, stored: Mapping[str, object]) -> None:
        """Fills the fields with what is stored, save those in which something else was typed.

        Another tab may have saved since they were filled.
        """
        filled = st.session_state.setdefault("settings_filled", {})
        for name, value in _as_shown(stored).items():
            key = f"settings_{name}"
            if name not in filled:
                st.session_state[key] = value
            elif st.session_state[key] == filled[name] != value:
                st.session_state[key] = value
                st.session_state.pop("undo_form", None)  # it would undo what was saved elsewhere
            if st.session_state[key] == value:
                filled[name] = value

    def typed(self) -> dict[str, object]:
        """What the form holds now; raises InvalidParameter."""
        values = {name: st.session_state[f"settings_{name}"] for name in generation.FIELDS}
        values["seed"] = generation.read_seed(values["seed"])
        return generation.checked(values)

    def save(self) -> None:
        if attempt(ANSWERS, self._save):
            st.toast(t("settings.saved"))

    def reset(self) -> None:
        """Stores nothing any longer, so that the defaults hold."""
        nothing = dict.fromkeys(generation.FIELDS)
        if attempt(ANSWERS, self._replace, nothing, ANSWERS, "reset"):
            st.toast(t("settings.saved"))

    def save_preset(self) -> None:
        if attempt(PRESETS, self._save_preset):
            st.session_state["settings_preset_name"] = ""
            st.toast(t("settings.preset_saved"))

    def apply_preset(self) -> None:
        """Fills the form with a preset and saves it."""
        if attempt(PRESETS, self._apply_preset):
            st.toast(t("settings.saved"))

    def delete_preset(self) -> None:
        attempt(PRESETS, self._delete_preset)

    @staticmethod
    def undo(what: str) -> None:
        """Takes back the last change of the "form" or of a "preset"."""
        undo: Undo | None = st.session_state.get(f"undo_{what}")
        if undo is not None and attempt(undo.place, undo.bring_back):
            del st.session_state[f"undo_{what}"]

    def set_language(self) -> None:
        chosen = st.session_state["settings_language"]
        value = None if chosen == "auto" else chosen
        attempt(LANGUAGE, self._store.set_user_settings, self._user_id, {"language": value})

    def _save(self) -> None:
        self._store.set_user_settings(self._user_id, self.typed())
        st.session_state["settings_filled"] = {}  # all fields are filled anew
        st.session_state.pop("undo_form", None)

    def _replace(self, values: Mapping[str, object], place: str, done: str, name: str = "") -> None:
        """Stores other values than there are and fills the form with them, with a way back."""
        stored = self._store.user_settings(self._user_id)
        before = {field: stored.get(field) for field in generation.FIELDS}
        shown = {field: st.session_state[f"settings_{field}"] for field in generation.FIELDS}
        filled = st.session_state["settings_filled"]
        self._store.set_user_settings(self._user_id, values)
        st.session_state["settings_filled"] = {}
        bring_back = partial(self._bring_back, before, shown, filled)
        st.session_state["undo_form"] = Undo(place, done, bring_back, name)

    def _bring_back(
        self, stored: dict[str, object], shown: dict[str, object], filled: dict[str, object]
    ) -> None:
        """What was stored, and the form as it was, also what was not saved in it yet."""
        self._store.set_user_settings(self._user_id, stored)
        st.session_state["settings_filled"] = filled
        for name, value in shown.items():
            st.session_state[f"settings_{name}"] = value

    def _save_preset(self) -> None:
        name = " ".join(st.session_state["settings_preset_name"].split())
        former = self._named(name)
        self._store.save_preset(self._user_id, name, self.typed())
        st.session_state["settings_preset"] = name
        self._keep_preset("replaced", former)

    def _apply_preset(self) -> None:
        preset = self._chosen()
        values, _ = generation.readable_values(preset.values)
        self._replace(values, PRESETS, "applied", preset.name)

    def _delete_preset(self) -> None:
        preset = self._chosen()
        self._store.delete_preset(self._user_id, preset.name)
        self._keep_preset("deleted", preset)

    def _keep_preset(self, done: str, former: Preset | None) -> None:
        """The way back to a preset as it was; there is none where none of this name was."""
        st.session_state.pop("undo_preset", None)
        if former is not None:
            save = partial(self._store.save_preset, self._user_id, former.name, former.values)
            st.session_state["undo_preset"] = Undo(PRESETS, done, save, former.name)

    def _chosen(self) -> Preset:
        """Another page may have deleted it."""
        name = st.session_state["settings_preset"]
        if (preset := self._named(name)) is None:
            raise UnknownPreset(name=name)
        return preset

    def _named(self, name: str) -> Preset | None:
        presets = self._store.presets(self._user_id)
        return next((preset for preset in presets if preset.name == name), None)


def _as_shown(values: Mapping[str, object]) -> dict[str, object]:
    """The values as the fields of the form hold them: a seed is a text, empty for none."""
    seed = values["seed"]
    return {**values, "seed": "" if seed is None else str(seed)}


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
        attempt(MODEL, lambda: self._models.load(self.request()))

    def unload(self) -> None:
        attempt(MODEL, self._models.unload)
