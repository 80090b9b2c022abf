"""The one thing all pages share: the process's services."""

from __future__ import annotations

import streamlit as st

from glm_backend.services import Services
from glm_backend.settings import Settings


def open_services() -> Services:
    """Opens the database and begins to load the operator's model."""
    services = Services(Settings.load())
    services.load_default_model()
    return services


# Without arguments on purpose: keyed by a model it would build the new before it drops the old.
@st.cache_resource(show_spinner=False, on_release=lambda services: services.close())
def load_services() -> Services:
    """The services, opened once; raises what `Services` raises, and then tries again next time."""
    return open_services()
