"""GET /api/conversations, one of them, /api/export, and POST /api/import: for this machine."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import BinaryIO, cast

import orjson
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from glm_backend.api.answers import answers_errors
from glm_backend.api.security import require_loopback
from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.services import Services
from glm_backend.store.columns import timestamp_text
from glm_backend.store.values import Reader
from glm_backend.transfer import (
    EXPORT_FORMS,
    SELECTION_WORDS,
    Selection,
    export,
    import_file,
)

_FILTER_WORDS = tuple(w for w in SELECTION_WORDS if w not in ("conversation", "branch"))
_MOST_LISTED = 1000
_MOST_DIGITS = 10
_YES_NO = {"1": True, "true": True, "0": False, "false": False}


def conversation_routes(services: Callable[[], Services]) -> list[Route]:
    """The routes over the services of this process, which may raise a GLMError."""

    async def opened(request: Request) -> Services:
        require_loopback(request)
        return await run_in_threadpool(services)

    async def listing(request: Request) -> Response:
        return await run_in_threadpool(_listing, await opened(request), request.query_params)

    async def one(request: Request) -> Response:
        its_id = request.path_params["id"]
        return await run_in_threadpool(_one, await opened(request), its_id, request.query_params)

    async def exporting(request: Request) -> Response:
        return await run_in_threadpool(_export, await opened(request), request.query_params)

    async def importing(request: Request) -> Response:
        here = await opened(request)
        words = _words(request.query_params, "format", "dry_run")
        _refuse_forms(request)
        # Beside the database: the system's own folder may be a part of the memory.
        with tempfile.TemporaryFile(dir=here.settings.data_dir) as file:
            try:
                async for chunk in request.stream():
                    await run_in_threadpool(file.write, chunk)
            except ClientDisconnect:
                return Response(status_code=400)  # which nobody reads; nothing was imported
            return await run_in_threadpool(_import, here, words, file)

    return [
        Route("/api/conversations", answers_errors(listing)),
        Route("/api/conversations/{id}", answers_errors(one)),
        Route("/api/export", answers_errors(exporting)),
        Route("/api/import", answers_errors(importing), methods=["POST"]),
    ]


def _listing(services: Services, query: QueryParams) -> Response:
    """One page of the list, and how many there are in all."""
    words = _words(query, "limit", "offset", *_FILTER_WORDS)
    limit = _whole_number("limit", words.pop("limit", ["100"]), _MOST_LISTED)
    offset = _whole_number("offset", words.pop("offset", ["0"]), 2**31)
    chosen, user_id = Selection.from_words(words).filter, services.user_id
    rows = services.store.list_conversations(user_id, limit=limit, offset=offset, filter=chosen)
    total = services.store.count_conversations(user_id, chosen)
    return _json({"conversations": [asdict(row) for row in rows], "total": total})


def _one(services: Services, its_id: str, query: QueryParams) -> Response:
    """The conversation as a line of JSONL has it."""
    selection = Selection.from_words(_words(query, "branch") | {"conversation": [its_id]})
    return _streamed(export(services.store, services.user_id, "jsonl", selection))


def _export(services: Services, query: QueryParams) -> Response:
    """A stream of one file. Whatever can be refused is refused before its first byte."""
    words = _words(query, "format", "bom", *SELECTION_WORDS)
    name = words.pop("format", [""])[-1]
    bom = _yes_no("bom", words.pop("bom", ["false"]))
    return streamed_export(services, services.user_id, name, Selection.from_words(words), bom=bom)


def streamed_export(
    services: Services, user_id: Reader, name: str, selection: Selection, *, bom: bool
) -> Response:
    """A file as it is made. Raises what `export` raises at once."""
    chunks = export(services.store, user_id, name, selection, bom=bom)
    form = EXPORT_FORMS[name]
    attached = f'attachment; filename="{form.file_name(selection)}"'
    return _streamed(chunks, form.media_type, {"content-disposition": attached})


def _import(services: Services, words: dict[str, list[str]], file: BinaryIO) -> Response:
    form = words.pop("format", ["auto"])[-1]
    dry_run = _yes_no("dry_run", words.pop("dry_run", ["false"]))
    report = import_file(services.store, services.user_id, file, form, dry_run=dry_run)
    return _json(report.values())


def _refuse_forms(request: Request) -> None:
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise InvalidParameter(
            name="content-type",
            value="multipart/form-data",
            allowed=Phrase("that of the file, which is the body itself (curl --data-binary @FILE)"),
        )


def _words(query: QueryParams, *known: str) -> dict[str, list[str]]:
    for name in query:
        if name not in known:
            allowed = Phrase("one of {names}", names=", ".join(known))
            raise InvalidParameter(name=Phrase("parameter"), value=repr(name[:40]), allowed=allowed)
    return {name: query.getlist(name) for name in query}


def _yes_no(name: str, words: Sequence[str]) -> bool:
    if len(words) != 1 or words[0].lower() not in _YES_NO:
        given = ", ".join(map(repr, words))[:40]
        raise InvalidParameter(name=name, value=given, allowed=Phrase("true or false"))
    return _YES_NO[words[0].lower()]


def _whole_number(name: str, words: Sequence[str], most: int) -> int:
    digits = words[0] if len(words) == 1 else ""
    if not digits.isdecimal() or len(digits) > _MOST_DIGITS or int(digits) > most:
        allowed = Phrase("a whole number from {low} to {high}", low=0, high=most)
        given = ", ".join(map(repr, words))[:40]
        raise InvalidParameter(name=name, value=given, allowed=allowed)
    return int(digits)


def _json(value: object) -> Response:
    body = orjson.dumps(value, default=_as_json, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return Response(body, media_type="application/json")


def _as_json(value: object) -> str:
    assert isinstance(value, datetime), "nothing else is in a list of conversations"
    return timestamp_text(value)


def _streamed(
    chunks: Iterator[bytes],
    media_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    return StreamingResponse(_from_thread(chunks), media_type=media_type, headers=headers)


async def _from_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Takes the chunks in worker threads; gives the database back when the reader leaves early."""
    try:
        async for chunk in iterate_in_threadpool(chunks):
            yield chunk
    finally:
        with suppress(ValueError):  # still at its last chunk in a worker thread: it ends by itself
            cast(Generator[bytes, None, None], chunks).close()
