"""GET /health, /ready and /api/export, on the port of the pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from typing import cast

from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from glm_backend.api.answers import answers_errors, error_values
from glm_backend.api.security import require_loopback
from glm_backend.errors import GLMError, InvalidParameter
from glm_backend.services import Services
from glm_backend.transfer import export_csv, export_json

_EXPORT_PARAMETERS = ("format", "bom", "conversation")
_YES_NO = {"1": True, "true": True, "0": False, "false": False}


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

    async def export(request: Request) -> Response:
        require_loopback(request)
        opened = await run_in_threadpool(services)
        return await run_in_threadpool(_export, opened, request.query_params)

    return [
        Route("/health", answers_errors(health)),
        Route("/ready", answers_errors(ready)),
        Route("/api/export", answers_errors(export)),
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


def _export(services: Services, query: QueryParams) -> Response:
    """A stream of one file. Whatever can be refused is refused before its first byte."""
    for name in query:
        if name not in _EXPORT_PARAMETERS:
            allowed = "one of " + ", ".join(_EXPORT_PARAMETERS)
            raise InvalidParameter(name="the parameter", value=repr(name), allowed=allowed)
    wanted = query.get("format", "")
    bom = _YES_NO.get(query.get("bom", "false").lower())
    if wanted not in ("csv", "json"):
        raise InvalidParameter(name="format", value=repr(wanted), allowed="csv or json")
    if bom is None:
        raise InvalidParameter(name="bom", value=repr(query["bom"]), allowed="true or false")
    ids = query.getlist("conversation") or None
    if wanted == "csv":
        chunks = export_csv(services.store, services.user_id, ids, bom=bom)
    else:
        chunks = export_json(services.store, services.user_id, ids)
    return StreamingResponse(
        _from_thread(chunks),
        media_type={"csv": "text/csv; charset=utf-8", "json": "application/json"}[wanted],
        headers={"content-disposition": f'attachment; filename="conversations.{wanted}"'},
    )


async def _from_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Takes the chunks in worker threads; gives the database back when the reader leaves early."""
    try:
        async for chunk in iterate_in_threadpool(chunks):
            yield chunk
    finally:
        with suppress(ValueError):  # still at its last chunk in a worker thread: it ends by itself
            cast(Generator[bytes, None, None], chunks).close()
