"""What this machine can run: the catalogue beside the memory there is."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import pandas as pd
import streamlit as st

from glm_backend.errors import GLMError
from glm_backend.models.catalog import CATALOG
from glm_backend.models.memory import MemoryEstimate
from glm_backend.models.model import QUANTIZATIONS, Quantization
from glm_backend.services import Services, request_for
from ui.labels import t
from ui.sizes import memory_size

#: Bars longer than this share of the free memory are cut: they do not fit, by how much is in the
#: table.
_SHOWN_SHARE = 1.6
_CHART_HEIGHT = 460


@dataclass(frozen=True, slots=True)
class Need:
    """One model at one precision; estimate is None where it cannot be known."""

    model: str
    quantization: Quantization
    estimate: MemoryEstimate | None


def needs(services: Services) -> list[Need]:
    """Every model of the catalogue at every precision."""
    return [
        Need(entry.title, quantization, _estimate(services, entry.id, quantization))
        for entry in CATALOG.values()
        for quantization in QUANTIZATIONS
    ]


def draw_machine(services: Services) -> None:
    """A chart for the eye and a table with the numbers."""
    found = needs(services)
    known = [need.estimate for need in found if need.estimate is not None]
    if known:
        st.caption(t("machine.free", available=memory_size(known[0].available_bytes)))
        st.altair_chart(memory_chart(found, known[0].available_bytes), height=_CHART_HEIGHT)
    with st.expander(t("machine.table")):
        st.dataframe(machine_table(found), hide_index=True)
        st.caption(t("machine.note"))


def machine_table(found: list[Need]) -> pd.DataFrame:
    """One row a model: languages, context, and memory at each precision with a mark."""
    cells = {(need.model, need.quantization): _cell(need.estimate) for need in found}
    return pd.DataFrame(
        {
            t("machine.model"): entry.title,
            t("machine.languages"): " / ".join(t(f"language.{name}") for name in entry.languages),
            t("machine.context"): f"{entry.context_length:,}",
            **{t(f"quantization.{q}"): cells[entry.title, q] for q in QUANTIZATIONS},
        }
        for entry in CATALOG.values()
    )


def memory_chart(found: list[Need], available_bytes: int) -> alt.LayerChart:
    """Memory by model and precision, with a line where this machine's memory ends."""
    limit = available_bytes / 1e9
    known = [(need, need.estimate) for need in found if need.estimate is not None]
    data = pd.DataFrame(
        {
            "model": need.model,
            "precision": t(f"quantization.{need.quantization}"),
            "needed": estimate.needed_bytes / 1e9,
            "shown": min(estimate.needed_bytes / 1e9, limit * _SHOWN_SHARE),
            "fits": t("machine.fits" if estimate.fits else "machine.too_large"),
        }
        for need, estimate in known
    )
    bars = (
        alt.Chart(data)
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            y=alt.Y("model:N", sort=None, title=None, axis=alt.Axis(labelLimit=180)),
            yOffset=alt.YOffset("precision:N", sort=None, scale=alt.Scale(paddingInner=0.15)),
            x=alt.X("shown:Q", title="GB"),
            color=alt.Color(
                "fits:N",
                title=None,
                scale=alt.Scale(
                    domain=[t("machine.fits"), t("machine.too_large")], range=["#4c9c86", "#b9b2a5"]
                ),
                legend=alt.Legend(orient="bottom"),
            ),
            tooltip=[
                alt.Tooltip("model:N", title=t("machine.model")),
                alt.Tooltip("precision:N", title=t("settings.quantization")),
                alt.Tooltip("needed:Q", title="GB", format=".1f"),
            ],
        )
    )
    line = (
        alt.Chart(pd.DataFrame({"limit": [limit]}))
        .mark_rule(strokeDash=[4, 3], size=2, color="#c2703d")
        .encode(x="limit:Q")
    )
    names = bars.mark_text(align="left", dx=4, fontSize=9, color="#8a938f").encode(
        text="precision:N", color=alt.value("#8a938f")
    )
    return bars + names + line


def _estimate(services: Services, model: str, quantization: Quantization) -> MemoryEstimate | None:
    try:
        estimate = services.models.estimate(request_for(services.settings, model, quantization))
    except GLMError:
        return None
    return estimate if estimate.known else None


def _cell(estimate: MemoryEstimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{'✓' if estimate.fits else '✗'} {memory_size(estimate.needed_bytes)}"
