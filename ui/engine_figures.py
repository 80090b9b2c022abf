"""What the engine is doing now, and what it has spared itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from glm_backend.engine.stats import EngineStats
from glm_backend.errors import ModelNotReady
from glm_backend.services import Services
from ui.labels import t
from ui.sizes import memory_size

_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment, in seconds of any clock."""

    at_s: float
    completion_tokens: int

    def speed_since(self, before: Look | None) -> float | None:
        """Tokens a second between two looks; None where the second is of another model."""
        if before is None or before.at_s >= self.at_s:
            return None
        made = self.completion_tokens - before.completion_tokens
        return made / (self.at_s - before.at_s) if made >= 0 else None


@st.fragment(run_every=_LOOK_S)
def draw_engine(services: Services) -> None:
    """Its figures, kept up to date while the page is open; nothing without a model."""
    try:
        model = services.models.current()
    except ModelNotReady:
        return
    stats = model.stats()
    now = Look(time.monotonic(), stats.completion_tokens)
    speed = now.speed_since(st.session_state.get("engine_look"))
    st.session_state["engine_look"] = now
    st.subheader(t("overview.engine"), anchor=False)
    with st.container(key="engine", gap="xsmall"):
        st.markdown(_now(stats, speed))
        for line in figures(stats, model.kv_bytes_per_token, model.kernels):
            st.caption(line)


def figures(stats: EngineStats, bytes_per_token: int, kernels: Sequence[str]) -> list[str]:
    """What there is to say beside the moment, a line each."""
    lines = [_kept(stats, bytes_per_token)]
    if stats.reuses:
        lines.append(t("engine.reused", tokens=stats.reused_tokens, prompts=stats.reuses))
    if stats.guessed_tokens:
        share = stats.guessed_right / stats.guessed_tokens
        lines.append(t("engine.guessed", right=stats.guessed_right, share=share))
    if stats.threads:
        names = ", ".join(kernels) or "torch"
        lines.append(t("engine.kernels", threads=stats.threads, names=names))
    return lines


def _now(stats: EngineStats, speed: float | None) -> str:
    parts = [
        t("engine.running", count=stats.running, most=stats.max_running),
        t("engine.waiting", count=stats.waiting),
    ]
    if speed is not None:
        parts.append(t("figures.speed", value=speed))
    return " · ".join(parts)


def _kept(stats: EngineStats, bytes_per_token: int) -> str:
    if not bytes_per_token:
        return t("engine.kept", count=stats.kept, used=stats.kv_tokens, limit=stats.kv_limit)
    used, limit = (
        memory_size(tokens * bytes_per_token) for tokens in (stats.kv_tokens, stats.kv_limit)
    )
    return t("engine.kept_bytes", count=stats.kept, used=used, limit=limit)
