"""How a route says that something went wrong: JSON with a status, never a stack trace."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glm_backend.errors import (
    EngineBusy,
    GLMError,
    InternalError,
    ModelLoading,
    OperatorError,
    UserError,
)

Endpoint = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)


#: Errors that pass by themselves: places come free as answers end, a model is loaded in the end.
_PASSING = (EngineBusy, ModelLoading)
#: When a program that was turned away by one may ask again.
_RETRY_AFTER_S = 5


def error_response(error: GLMError) -> JSONResponse:
    """{"error": {"message", "type", "code"}} with the error's status."""
    headers = {"retry-after": str(_RETRY_AFTER_S)} if isinstance(error, _PASSING) else None
    return JSONResponse({"error": error_values(error)}, status_code=error.status, headers=headers)


def error_values(error: GLMError) -> dict[str, object]:
    """The error as the routes write it."""
    kind = "internal_error"
    if isinstance(error, UserError):
        kind = "invalid_request_error"
    elif isinstance(error, OperatorError):
        kind = "server_error"
    values: dict[str, object] = {"message": str(error), "type": kind, "code": error.code}
    if isinstance(error, EngineBusy):
        values |= error.details
    return values


def answers_errors(endpoint: Endpoint) -> Endpoint:
    """Turns whatever the endpoint raises into an answer."""

    @functools.wraps(endpoint)
    async def answered(request: Request) -> Response:
        try:
            return await endpoint(request)
        except GLMError as error:
            return error_response(error)
        except Exception as error:
            logger.exception("%s failed", request.url.path)
            return error_response(InternalError(message=type(error).__name__))

    return answered
