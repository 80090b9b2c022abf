"""Every route beside the model's, on the port of the pages: /health, /ready, and /api."""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from glm_backend.api.answers import answers_errors, error_values
from glm_backend.api.conversations import conversation_routes
from glm_backend.errors import GLMError
from glm_backend.services import Services


def make_routes(services: Callable[[], Services]) -> list[Route]:
    """The routes over the services of this process.

    `services` may raise a GLMError while the database cannot be opened; only /health answers then.
    """

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> Response:
        state, error = await run_in_threadpool(_state, services)
        answer: dict[str, object] = {"state": state}
        if error is not None:
            answer["error"] = error_values(error)
        return JSONResponse(answer, status_code=200 if state == "ready" else 503)

    return [
        Route("/health", answers_errors(health)),
        Route("/ready", answers_errors(ready)),
        *conversation_routes(services),
    ]


def _state(services: Callable[[], Services]) -> tuple[str, GLMError | None]:
    """Whether a question would be answered now, and what stands in the way."""
    try:
        opened = services()
    except GLMError as error:
        return "failed", error
    try:
        opened.model()
    except GLMError as error:
        if opened.is_remote:
            return "failed", error
        status = opened.models.status()
        return status.state, status.error
    return "ready", None
