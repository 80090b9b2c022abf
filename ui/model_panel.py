"""What the model is doing now: ready, loading with its stage, or what to do when there is none."""

from __future__ import annotations

import streamlit as st

from glm_backend.errors import Cancelled, GLMError
from glm_backend.models.chatglm_family import FAMILIES
from glm_backend.models.manager import ModelFacts, ModelStatus
from glm_backend.remote_model import host_of
from glm_backend.services import Services
from ui.frame import plain_error
from ui.labels import said, t
from ui.pages import SETTINGS
from ui.safe_markdown import plain
from ui.sizes import memory_size

_LOADING_S = 0.5
_IDLE_S = 3.0


def draw_model_panel(services: Services, *, on_settings: bool = False) -> None:
    """The state of the model, kept up to date while the page is open.

    `on_settings`: the page has the buttons that load a model, so no link to it is needed. Only
    there is it told why a model did not take the place of the one that answers.
    """
    if services.is_remote:
        st.info(t("model.remote", host=plain(host_of(services.settings.upstream_url))))
        return
    drawn = services.models.status()

    @st.fragment(run_every=_LOADING_S if drawn.state == "loading" else _IDLE_S)
    def panel() -> None:
        status = services.models.status()
        if _kind(status) != _kind(drawn):
            st.rerun()
        _draw_status(services, status, on_settings=on_settings)

    panel()


def is_answering(services: Services) -> bool:
    """True when a question sent now would find a model; another server is asked at the question."""
    return services.is_remote or services.models.status().model is not None


def _kind(status: ModelStatus) -> tuple[object, ...]:
    """What the rest of a page depends on; progress is not part of it."""
    return status.state, status.model, status.request, status.error


def _draw_status(services: Services, status: ModelStatus, *, on_settings: bool) -> None:
    if status.model is not None:
        _draw_facts(status.model, on_settings=on_settings)
    error = None if isinstance(status.error, Cancelled) else status.error
    if status.state == "loading":
        _draw_progress(services, status)
    elif status.model is None:
        _draw_lack(services, error, on_settings=on_settings)
    elif error is not None and on_settings:
        st.error(plain_error(error))
        st.button(
            t("model.dismiss"),
            key="model_dismiss",
            type="tertiary",
            on_click=services.models.forget_error,
        )


def _draw_facts(model: ModelFacts, *, on_settings: bool) -> None:
    with st.container(key="model_facts", gap="xsmall"):
        st.markdown(t("model.ready", name=plain(model.name)))
        st.caption(
            t(
                "model.facts",
                memory=memory_size(model.memory_bytes),
                quantization=t(f"quantization.{model.quantization}"),
                device=model.device,
                dtype=model.dtype,
                context=model.context_length,
                seconds=model.load_seconds,
            )
        )
        if model.family in FAMILIES:
            why = plain(said(model.recognised))
            st.caption(t("model.recognised", family=model.family, why=why))
        if model.english_first:
            key = "model.english_first_here" if on_settings else "model.english_first"
            st.caption(t(key))


def _draw_progress(services: Services, status: ModelStatus) -> None:
    name = status.request.model if status.request else ""
    stage = t(f"stage.{status.stage}") if status.stage else t("stage.waiting")
    text = t("model.loading", name=plain(name), stage=stage)
    st.progress(min(1.0, max(0.0, status.fraction)), text=text)
    st.button(t("model.cancel"), key="model_cancel", on_click=services.models.cancel)


def _draw_lack(services: Services, error: GLMError | None, *, on_settings: bool) -> None:
    """Nothing can answer: why, and what can be done."""
    if error is not None:
        st.error(plain_error(error))
    else:
        st.info(t("model.empty"))
    if on_settings:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            t("model.try_again"),
            key="model_retry",
            on_click=services.load_default_model,
        )
        st.page_link(SETTINGS, label=t("model.choose_other"))
