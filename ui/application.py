"""The parts of the web application: routes, security headers, and what happens at start and end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from glm_backend.api.metrics import metrics_route
from glm_backend.api.openai import openai_routes
from glm_backend.api.original import original_route
from glm_backend.api.routes import make_routes
from glm_backend.api.security import SecurityHeaders, require_loopback
from glm_backend.errors import GLMError
from ui import resources
from ui.export import DOWNLOADS

ROOT = Path(__file__).resolve().parents[1]
ROUTER = ROOT / "ui" / "router.py"
ASSETS = ROOT / "ui" / "assets"

ROUTES = [
    *make_routes(resources.load_services),
    DOWNLOADS.route(resources.load_services),
    original_route(resources.load_services, guard=require_loopback),
    openai_routes(resources.load_services, guard=require_loopback),
    metrics_route(resources.load_services, guard=require_loopback),
    Mount("/assets", StaticFiles(directory=ASSETS)),
]
MIDDLEWARE = [Middleware(SecurityHeaders)]

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Opens the services before the first page asks for them, closes them after the last."""
    try:
        await asyncio.to_thread(resources.load_services)
    except GLMError as error:  # pages say so, and try again at each visit
        logger.error("%s", error)
    yield {}
    await asyncio.to_thread(resources.load_services.clear)
