"""What `streamlit run Home.py` starts: the pages and, on the same port, the API routes.

The pages themselves begin in ui/router.py, which runs first for every one of them.
"""

from __future__ import annotations

import sys

import streamlit as st

from glm_backend.errors import SettingsError
from glm_backend.settings import Settings
from ui.application import MIDDLEWARE, ROUTER, ROUTES, lifespan

try:
    Settings.load()
except SettingsError as error:
    sys.stderr.write(f"{error}\n")
    sys.exit(2)

app = st.App(ROUTER, lifespan=lifespan, routes=ROUTES, middleware=MIDDLEWARE)
