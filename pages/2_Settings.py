"""How answers are made, which model makes them, and the language of the pages."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from glm_backend.errors import InvalidParameter
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.services import Services
from ui import generation
from ui.frame import draw_refusal, open_page, saying_errors
from ui.labels import t
from ui.language import LANGUAGES
from ui.model_choice import draw_choice, draw_precisions
from ui.model_panel import draw_model_panel
from ui.safe_markdown import plain
from ui.settings_actions import ANSWERS, LANGUAGE, PRESETS, GenerationActions, Undo

_STEPS = {
    "temperature": 0.05, "top_p": 0.01, "min_p": 0.01, "typical_p": 0.01,
    "repetition_penalty": 0.01, "max_length": 1,
}  # fmt: skip


def draw_generation(services: Services) -> None:
    """The parameters, each with what it does."""
    actions = GenerationActions(services)
    stored, corrections = generation.readable_values(services.store.user_settings(services.user_id))
    draw_corrections(corrections)
    actions.keep_up(stored)
    st.subheader(t("settings.answers_title"), anchor=False)
    left, right = st.columns(2, gap="large")
    with left:
        for name in ("temperature", "top_p", "min_p", "typical_p"):
            draw_slider(name)
    with right:
        draw_number("top_k")
        draw_slider("repetition_penalty")
        if has_original_limits(services):
            draw_slider("max_length")
        else:
            draw_number("max_new_tokens")
        st.text_input(
            t("settings.seed"),
            key="settings_seed",
            placeholder=t("settings.seed_random"),
            help=t("settings.seed_help"),
            persist_state="session",
        )
    st.text_area(
        t("settings.system_prompt"),
        key="settings_system_prompt",
        help=t("settings.system_prompt_help"),
        height=120,
        persist_state="session",
    )
    draw_outcome(ANSWERS)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(t("settings.save"), key="settings_save", type="primary", on_click=actions.save)
        st.button(t("settings.reset"), key="settings_reset", on_click=actions.reset)
        if has_changed(actions, stored):
            st.caption(t("settings.unsaved"))


def draw_corrections(corrections: Sequence[generation.Correction]) -> None:
    """Which stored values may not be."""
    with st.container():  # always, so that nothing below it moves
        for correction in corrections:
            st.warning(
                t(
                    "settings.corrected",
                    name=t(f"settings.{correction.name}"),
                    stored=plain(str(correction.stored)[:40]),
                    used=correction.used,
                )
            )


def draw_outcome(place: str) -> None:
    """Above the buttons of a part: why the last click was refused, or the way back from it."""
    with st.container():  # always, so that nothing below it moves
        draw_refusal(place)
        for what in ("form", "preset"):
            undo: Undo | None = st.session_state.get(f"undo_{what}")
            if undo is not None and undo.place == place:
                with st.container(horizontal=True, vertical_alignment="center"):
                    st.caption(t(f"undo.{undo.done}", name=plain(undo.name)), width="content")
                    st.button(
                        t("chat.undo"),
                        key=f"settings_undo_{what}",
                        type="tertiary",
                        on_click=GenerationActions.undo,
                        args=(what,),
                    )


def has_original_limits(services: Services) -> bool:
    """True while a model of the ChatGLM family is loaded: its users know one limit for both."""
    model = None if services.is_remote else services.models.status().model
    return model is not None and model.family in FAMILIES


def has_changed(actions: GenerationActions, stored: dict[str, object]) -> bool:
    """True while the form holds something else than what is stored."""
    try:
        return actions.typed() != stored
    except InvalidParameter:
        return True


def draw_slider(name: str) -> None:
    step = _STEPS[name]
    low, high = (type(step)(limit) for limit in generation.limits(name))
    st.slider(
        t(f"settings.{name}"),
        low,
        high,
        step=step,
        key=f"settings_{name}",
        help=t(f"settings.{name}_help"),
        persist_state="session",
    )
    st.caption(t(f"settings.{name}_short"))


def draw_number(name: str) -> None:
    low, high = generation.limits(name)
    st.number_input(
        t(f"settings.{name}"),
        int(low),
        int(high),
        step=1,
        key=f"settings_{name}",
        help=t(f"settings.{name}_help"),
        persist_state="session",
    )
    st.caption(t(f"settings.{name}_short"))


def draw_presets(services: Services) -> None:
    """Parameters by name."""
    actions = GenerationActions(services)
    names = [preset.name for preset in services.store.presets(services.user_id)]
    with st.expander(t("settings.presets"), key="settings_presets"):
        draw_outcome(PRESETS)
        if names:
            with st.container(horizontal=True, vertical_alignment="bottom"):
                st.selectbox(t("settings.preset"), names, key="settings_preset")
                st.button(
                    t("settings.apply"), key="settings_preset_apply", on_click=actions.apply_preset
                )
                st.button(
                    t("settings.delete"),
                    key="settings_preset_delete",
                    on_click=actions.delete_preset,
                )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input(t("settings.preset_name"), key="settings_preset_name", max_chars=80)
            st.button(
                t("settings.preset_save"), key="settings_preset_save", on_click=actions.save_preset
            )


def draw_model(services: Services) -> None:
    """Which model answers."""
    st.subheader(t("settings.model_title"), anchor=False)
    if services.is_remote:
        draw_model_panel(services, on_settings=True)
        return
    left, right = st.columns(2, gap="large")
    with left:
        draw_choice(services)
    with right:
        draw_precisions(services)


def draw_language(services: Services) -> None:
    """The language of the pages, whatever the browser asks for."""
    st.subheader(t("settings.language_title"), anchor=False)
    stored = services.store.user_settings(services.user_id).get("language")
    draw_outcome(LANGUAGE)
    st.session_state.setdefault("settings_language", stored if stored in LANGUAGES else "auto")
    st.segmented_control(
        t("settings.language"),
        ["auto", *LANGUAGES],
        key="settings_language",
        format_func=lambda name: LANGUAGES.get(name) or t("settings.language_auto"),
        required=True,
        on_change=GenerationActions(services).set_language,
    )


services = open_page()
st.title(t("settings.title"), anchor=False)
with saying_errors():
    draw_generation(services)
    draw_presets(services)
st.space("small")
with saying_errors():
    draw_model(services)
st.space("small")
with saying_errors():
    draw_language(services)
