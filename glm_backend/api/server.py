"""The API without the pages: `python -m glm_backend serve`."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from glm_backend.api.metrics import metrics_route
from glm_backend.api.openai import openai_routes
from glm_backend.api.original import original_route
from glm_backend.api.routes import make_routes
from glm_backend.api.security import SecurityHeaders
from glm_backend.services import Services

_DOCS = """<!doctype html><html lang="en"><title>GLM Chat API</title><h1>GLM Chat API</h1><ul>
<li>POST / {"prompt", "history", "max_length", "top_p", "temperature"}
<li>GET /v1/models, POST /v1/chat/completions: as OpenAI's clients know them
<li>GET /api/conversations, GET /api/export?format=csv, POST /api/import: from this machine only
<li>GET /health, GET /ready, GET /metrics</ul><p>Fields, limits and errors: docs/api.md.</html>"""

#: As the original openai_api.py has it: web pages of any origin may ask. There are no cookies here
#: that they could misuse, and conversations are not under these paths.
_ANY_ORIGIN = Middleware(
    CORSMiddleware,
    allow_origins=["*"],
    allow_credentials=True,
    allow_methods=["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"],
    allow_headers=["*"],
)


def make_app(services: Callable[[], Services]) -> Starlette:
    """The routes as one application; the model's are for whoever can reach the port."""

    def everybody(request: Request) -> None:
        """Whom the operator lets reach the port may ask."""

    async def docs(request: Request) -> Response:
        return HTMLResponse(_DOCS)

    return Starlette(
        routes=[
            *make_routes(services),
            original_route(services, guard=everybody),
            openai_routes(services, guard=everybody, middleware=[_ANY_ORIGIN]),
            metrics_route(services, guard=everybody),
            Route("/docs", docs),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={HTTPException: _refused},
    )


async def _refused(request: Request, error: Exception) -> Response:
    """No such path or method, in our form of an error and in the original's."""
    assert isinstance(error, HTTPException)
    values = {"message": error.detail, "type": "invalid_request_error", "code": error.status_code}
    body = {"error": values, "detail": error.detail}
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


def serve(services: Services, host: str, port: int) -> int:
    """Listens until it is told to stop (SIGINT, SIGTERM); returns the exit code.

    It listens while the model loads (GET /ready says when it is there) and ends with 1 when the
    model cannot be loaded or the address cannot be had.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        sys.stderr.write(f"Cannot listen on {host}, port {port}: {error.strerror or error}.\n")
        return 1
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(lambda: services),
            log_level=services.settings.log_level,
            timeout_graceful_shutdown=5,
        )
    )
    failed = threading.Event()
    if not services.is_remote:
        services.load_default_model()
        args = (services, server, failed)
        threading.Thread(target=_end_when_the_model_fails, args=args, daemon=True).start()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _heard)
    server.run(sockets=[listening])
    return 1 if failed.is_set() else 0


def _heard(number: int, frame: FrameType | None) -> None:
    """uvicorn raises a signal again once it has ended by it: what is open is closed first."""


def _end_when_the_model_fails(
    services: Services, server: uvicorn.Server, failed: threading.Event
) -> None:
    status = services.models.wait(float(threading.TIMEOUT_MAX))
    if status.state == "failed":
        sys.stderr.write(f"{status.error}\n")
        failed.set()
        server.should_exit = True
