"""The dashboard on a fake model: `streamlit run tests/fake_dashboard.py`, as browser tests do.

Everything but the model is the product. FAKE_MODEL_LOADED=0 leaves it unloaded.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from glm_backend.settings import Settings  # noqa: E402
from tests.fakes import ScriptedModel, fake_services  # noqa: E402
from ui import application, resources  # noqa: E402

_loaded = os.environ.get("FAKE_MODEL_LOADED", "1") == "1"
resources.open_services = lambda: fake_services(
    Settings.load().data_dir, ScriptedModel(), loaded=_loaded
)

app = st.App(
    application.ROUTER,
    lifespan=application.lifespan,
    routes=application.ROUTES,
    middleware=application.MIDDLEWARE,
)
