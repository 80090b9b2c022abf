"""GET /download/TICKET: an export that a page has offered, streamed to whoever holds the ticket.

A page cannot hand out a file of any size without holding all of it; a link it can. The ticket
stands for one user's choice, cannot be guessed, and is good for an hour.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from glm_backend.api.answers import answers_errors
from glm_backend.api.conversations import streamed_export
from glm_backend.errors import DownloadExpired
from glm_backend.services import Services
from glm_backend.store.values import Reader
from glm_backend.transfer import Selection

GOOD_FOR_S = 3600.0
_MOST = 1000  # tickets at once; the oldest go first


@dataclass(frozen=True, slots=True)
class Offer:
    """What a ticket stands for: the arguments of `transfer.export`."""

    user_id: Reader
    form: str
    selection: Selection
    bom: bool = False


class Downloads:
    """The offers of this process. Any number of threads may use it at once."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._offers: OrderedDict[str, tuple[float, Offer]] = OrderedDict()
        self._lock = threading.Lock()

    def address(self, offer: Offer) -> str:
        """The path of the URL to download it from; the same one while the page stands."""
        with self._lock:
            self._drop_old()
            known = (ticket for ticket, (_, its) in self._offers.items() if its == offer)
            ticket = next(known, None) or secrets.token_urlsafe(24)
            self._offers[ticket] = (self._clock_s(), offer)
            self._offers.move_to_end(ticket)
        return f"/download/{ticket}"

    def offer(self, ticket: str) -> Offer:
        """What the ticket stands for; raises DownloadExpired."""
        with self._lock:
            self._drop_old()
            if ticket not in self._offers:
                raise DownloadExpired()
            return self._offers[ticket][1]

    def route(self, services: Callable[[], Services]) -> Route:
        """The route over the services of this process, which may raise a GLMError."""

        async def download(request: Request) -> Response:
            offer = self.offer(request.path_params["ticket"])
            opened = await run_in_threadpool(services)
            return await run_in_threadpool(
                streamed_export, opened, offer.user_id, offer.form, offer.selection, bom=offer.bom
            )

        return Route("/download/{ticket}", answers_errors(download))

    def _drop_old(self) -> None:
        now_s = self._clock_s()
        while self._offers:
            ticket, (offered_s, _) = next(iter(self._offers.items()))
            if now_s - offered_s < GOOD_FOR_S and len(self._offers) < _MOST:
                return
            del self._offers[ticket]
