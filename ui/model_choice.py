"""Choosing a model: what there is, what it needs, how fast it was here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from glm_backend.errors import GLMError, InvalidParameter
from glm_backend.models.catalog import CATALOG, CatalogEntry, entry_of
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.models.devices import devices
from glm_backend.models.manager import ModelRequest
from glm_backend.models.model import QUANTIZATIONS, Quantization
from glm_backend.services import Services
from glm_backend.store.usage import Speed
from ui.frame import draw_refusal, plain_error
from ui.labels import t
from ui.model_panel import draw_model_panel
from ui.settings_actions import FOLDER, MODEL, ModelActions, takes_chatglm_options
from ui.sizes import memory_size

#: So narrow that none of the four is cut off beside the form at 1280 pixels.
_WIDTHS_PX = {"precision": 105, "memory": 85, "speed": 110, "answers": 75}
#: How often it is looked whether answers are being written.
_LOOK_S = 2.0


def draw_choice(services: Services) -> None:
    """The fields that say what to load, what that needs, what is loaded, and the buttons."""
    actions = ModelActions(services)
    _prefill(services)
    st.selectbox(
        t("settings.model"),
        [*CATALOG, FOLDER],
        key="settings_model",
        format_func=_model_name,
        persist_state="session",
    )
    if st.session_state["settings_model"] == FOLDER:
        st.text_input(
            t("settings.folder"),
            key="settings_folder",
            placeholder=t("settings.folder_example"),
            help=t("settings.folder_help"),
            persist_state="session",
        )
    else:
        _draw_entry(CATALOG[st.session_state["settings_model"]])
    st.segmented_control(
        t("settings.quantization"),
        QUANTIZATIONS,
        key="settings_quantization",
        format_func=lambda name: t(f"quantization.{name}"),
        help=t("settings.quantization_help"),
        required=True,
        persist_state="session",
    )
    st.selectbox(t("settings.device"), devices(), key="settings_device", persist_state="session")
    if takes_chatglm_options(st.session_state["settings_model"]):
        _draw_chatglm_options()
    _draw_estimate(services, actions)
    # What becomes of a load is shown above the button that begins it: there one looks.
    draw_model_panel(services, on_settings=True)
    with st.empty():
        draw_refusal(MODEL)
    _draw_buttons(services, actions)


def _draw_buttons(services: Services, actions: ModelActions) -> None:
    status = services.models.status()
    with st.container(horizontal=True):
        st.button(t("settings.load"), key="settings_load", type="primary", on_click=actions.load)
        st.button(
            t("settings.unload"),
            key="settings_unload",
            on_click=actions.unload,
            disabled=status.model is None,
        )
    _draw_answers_at_stake(services)


def draw_precisions(services: Services) -> None:
    """Memory and speed of the chosen model at each precision."""
    try:
        request = ModelActions(services).request()
    except InvalidParameter:
        return
    table = precision_table(services, request, services.store.speeds(services.user_id))
    st.markdown(t("settings.precisions"))
    fastest = table["speed"].max()
    st.dataframe(
        table,
        hide_index=True,
        placeholder="–",
        column_config={
            "precision": st.column_config.TextColumn(
                t("settings.quantization"), width=_WIDTHS_PX["precision"]
            ),
            "memory": st.column_config.NumberColumn(
                t("settings.memory"), width=_WIDTHS_PX["memory"], format="%.2f GB"
            ),
            "speed": st.column_config.ProgressColumn(
                t("settings.speed"),
                width=_WIDTHS_PX["speed"],
                format="%.1f",
                min_value=0,
                max_value=float(fastest) if fastest > 0 else 1.0,
            ),
            "answers": st.column_config.NumberColumn(
                t("settings.answers"), width=_WIDTHS_PX["answers"]
            ),
        },
    )
    st.caption(t("settings.precisions_help"))


def precision_table(
    services: Services, request: ModelRequest, speeds: Sequence[Speed]
) -> pd.DataFrame:
    """A row for each precision: memory in GB, tokens/s so far, and over how many answers."""
    entry = entry_of(request.model)
    name = entry.title if entry else request.model.rstrip("/").rpartition("/")[2]
    measured = {speed.quantization: speed for speed in speeds if speed.model == name}
    rows = []
    for quantization in QUANTIZATIONS:
        speed = measured.get(quantization)
        rows.append(
            {
                "precision": t(f"quantization.{quantization}"),
                "memory": _needed_gigabytes(services, request, quantization),
                "speed": speed.tokens_per_s if speed else None,
                "answers": speed.answers if speed else 0,
            }
        )
    return pd.DataFrame(rows)


def _needed_gigabytes(
    services: Services, request: ModelRequest, quantization: Quantization
) -> float | None:
    try:
        estimate = services.models.estimate(replace(request, quantization=quantization))
    except GLMError:
        return None
    return estimate.needed_bytes / 1e9 if estimate.known else None


def _prefill(services: Services) -> None:
    """What is loaded now, else what the operator named."""
    request = services.models.status().request or services.default_request
    entry = entry_of(request.model)
    st.session_state.setdefault("settings_model", FOLDER if entry is None else entry.id)
    if entry is None:
        st.session_state.setdefault("settings_folder", request.model)
    st.session_state.setdefault("settings_family", request.family)
    st.session_state.setdefault("settings_ptuning", request.ptuning)
    st.session_state.setdefault("settings_quantization", request.quantization)
    there = request.device in devices()
    st.session_state.setdefault("settings_device", request.device if there else "auto")


def _draw_chatglm_options() -> None:
    """What a folder cannot say by itself; hardly anybody needs it."""
    with st.expander(t("settings.chatglm")):
        st.selectbox(
            t("settings.family"),
            ["", *FAMILIES],
            key="settings_family",
            format_func=lambda family: family or t("settings.family_auto"),
            help=t("settings.family_help"),
            persist_state="session",
        )
        st.text_input(
            t("settings.ptuning"),
            key="settings_ptuning",
            help=t("settings.ptuning_help"),
            persist_state="session",
        )


@st.fragment(run_every=_LOOK_S)
def _draw_answers_at_stake(services: Services) -> None:
    """What letting the present model go would stop."""
    stats = services.engine_stats()
    if stats is not None and (count := stats.running + stats.waiting):
        st.warning(t("settings.answers_end", count=count))


def _model_name(model: str) -> str:
    return t("settings.a_folder") if model == FOLDER else CATALOG[model].title


def _draw_entry(entry: CatalogEntry) -> None:
    facts = [
        t("list.and").join(t(f"language.{name}") for name in entry.languages),
        t("settings.context", tokens=entry.context_length),
        entry.licence,
    ]
    if entry.download_bytes:
        facts.append(t("settings.download", size=memory_size(entry.download_bytes)))
    st.caption(" · ".join(facts))


def _draw_estimate(services: Services, actions: ModelActions) -> None:
    """Memory needed beside memory there is, before anything is loaded."""
    try:
        estimate = services.models.estimate(actions.request())
    except InvalidParameter:
        return  # no path yet
    except GLMError as error:
        st.warning(plain_error(error))
        return
    if not estimate.known:
        st.caption(t("estimate.unknown", available=memory_size(estimate.available_bytes)))
        return
    share = estimate.needed_bytes / max(1, estimate.available_bytes)
    key = "estimate.fits" if estimate.fits else "estimate.too_large"
    text = t(
        key,
        needed=memory_size(estimate.needed_bytes),
        available=memory_size(estimate.available_bytes),
    )
    st.progress(min(1.0, share), text=text)
