"""Headers on every answer of the process, and who may ask for conversations without signing in."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glm_backend.errors import LoopbackOnly

#: Nothing is fetched from or sent to another host, whatever a model writes: an image in an answer
#: could carry the conversation away in its address. The pages need inline styles and WebAssembly.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "style-src 'self' 'unsafe-inline'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "font-src 'self' data:",
        "connect-src 'self'",
        "frame-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
_HEADERS = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"SAMEORIGIN"),
]
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
#: Any of these says that the request was handed on, so that its sender is not on this machine.
_FORWARDING = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class SecurityHeaders:
    """ASGI middleware; plain, so that streams and websockets pass untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _set_headers(message)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _set_headers(message: MutableMapping[str, Any]) -> None:
    ours = {name for name, _ in _HEADERS}
    others = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
    message["headers"] = [*others, *_HEADERS]


def require_loopback(request: Request) -> None:
    """Raises LoopbackOnly unless a program on this machine asks, directly and by a local name.

    The name is checked because a page elsewhere can point a host name of its own at 127.0.0.1
    (DNS rebinding) and would then read the answer.
    """
    peer = request.client.host if request.client else ""
    headers = request.headers
    near = _is_loopback(peer) and _is_direct(headers) and _names_this_machine(headers)
    if not near or _is_of_another_site(headers):
        raise LoopbackOnly()


def _is_of_another_site(headers: Mapping[str, str]) -> bool:
    """Whether a page of another site sends it, which needs no leave to send.

    A browser names the page's origin with every POST; programs name none.
    """
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_direct(headers: Mapping[str, str]) -> bool:
    return not any(name in headers for name in _FORWARDING)


def _names_this_machine(headers: Mapping[str, str]) -> bool:
    host = headers.get("host", "").lower()
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in _LOCAL_NAMES
