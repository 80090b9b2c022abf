"""A hub on this machine: the parts of the protocol that fetching a model uses, and its troubles."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_CHUNK = 16 * 1024


@dataclass
class Hub:
    """One repository. Files larger than `lfs_bytes` are sent through a redirect, as LFS files are.

    cut_after: a file's connection is closed after so many bytes (once a request).
    stall_after: nothing more comes after so many bytes. pause_s: between chunks.
    requests: (path, Range header) of every request for content.
    """

    repo: str
    files: dict[str, bytes]
    lfs_bytes: int = 50_000
    cut_after: int | None = None
    stall_after: int | None = None
    pause_s: float = 0.0
    status: int = 200
    gated: bool = False
    knows_ranges: bool = True
    corrupt: bool = False
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: object, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def ranges(self, name: str) -> list[str | None]:
        """The Range headers with which the content of `name` was asked for."""
        return [asked for path, asked in self.requests if path.endswith(f"/{name}")]

    def info(self) -> dict[str, Any]:
        return {
            "id": self.repo,
            "sha": COMMIT,
            "siblings": [self._sibling(name, body) for name, body in self.files.items()],
        }

    def _sibling(self, name: str, body: bytes) -> dict[str, Any]:
        sibling: dict[str, Any] = {"rfilename": name, "size": len(body), "blobId": _blob(body)}
        if len(body) > self.lfs_bytes:
            digest = hashlib.sha256(body).hexdigest()
            sibling["lfs"] = {"sha256": digest, "size": len(body), "pointerSize": 134}
        return sibling


def _blob(body: bytes) -> str:
    return hashlib.sha1(body, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        if hub.status != 200:
            self._error(hub.status, None)
        elif path == f"/api/models/{hub.repo}":
            self._json(hub.info())
        elif match := re.fullmatch(rf"/{hub.repo}/resolve/{COMMIT}/(.+)", path):
            self._resolve(match[1])
        elif match := re.fullmatch(r"/cdn/(.+)", path):
            self._content(match[1])
        else:
            self._error(401, "RepoNotFound")

    def _resolve(self, name: str) -> None:
        if self.hub.gated:
            self._error(403, "GatedRepo")
        elif name not in self.hub.files:
            self._error(404, "EntryNotFound")
        elif len(self.hub.files[name]) > self.hub.lfs_bytes:
            self.send_response(302)
            self.send_header("Location", f"{self.hub.endpoint}/cdn/{name}")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(len(self.hub.files[name])))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._content(name)

    def _content(self, name: str) -> None:
        hub, body, asked = self.hub, self.hub.files[name], self.headers.get("Range")
        hub.requests.append((self.path, asked))
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.knows_ranges else 0
        if hub.corrupt:
            body = bytes(len(body))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{_blob(body)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        self._send(memoryview(body)[start:], large=len(body) > hub.lfs_bytes)

    def _send(self, body: memoryview, *, large: bool) -> None:
        hub = self.hub
        for begin in range(0, len(body), _CHUNK):
            if large and hub.stall_after is not None and begin >= hub.stall_after:
                hub.closing.wait()
            if large and hub.cut_after is not None and begin >= hub.cut_after:
                self.close_connection = True
                return
            try:
                self.wfile.write(body[begin : begin + _CHUNK])
            except OSError:  # the other side has gone
                self.close_connection = True
                return
            time.sleep(hub.pause_s)

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, code: str | None) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
