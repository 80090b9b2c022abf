"""Fetches a model repository from the hub into a folder: resumable, stoppable, checked.

huggingface_hub finds the files and speaks the protocol (tokens, gated repositories, mirrors); the
bytes are streamed here, because its own downloads start from zero after they were stopped. Only
weights, configs and tokenizers are taken, never a program.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from glm_backend.errors import Cancelled, DownloadFailed, GLMError, Phrase

if TYPE_CHECKING:
    import httpx2

_SUFFIXES = (".json", ".jinja", ".safetensors", ".bin", "tokenizer.model", "ice_text.model")
_POLL_S = 0.2
_CONNECT_S = 10.0
_SILENCE_S = 30.0
#: Attempts in a row that bring no byte before the download is given up.
_ATTEMPTS = 4
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to fetch. tag names its content; sha256 is known for large files only."""

    name: str
    size_bytes: int
    tag: str
    sha256: str | None


def download(
    repo: str,
    target: Path,
    *,
    model: str,
    on_progress: Callable[[str, float], None],
    endpoint: str | None = None,
) -> None:
    """Makes the folder `target` hold the model files of `repo`; returns at once when it is there.

    endpoint: address of a mirror, None takes the hub's (or HF_ENDPOINT, which huggingface_hub
    reads). What was fetched before an interruption is kept beside `target` and not fetched again.
    Raises DownloadFailed, and within a second what `on_progress` raises.
    """
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    work = _Download(repo, target, model, endpoint)
    # A thread, so that a connection that hangs cannot keep "stop" waiting.
    thread = threading.Thread(target=work.run, name=f"download {repo}", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_S)
            on_progress("downloading", work.fraction)
    finally:
        work.stop.set()
    if work.error is not None:
        raise work.error


@dataclass
class _Download:
    """The work of one thread. Nothing is written any more once `stop` is set."""

    repo: str
    target: Path
    model: str
    endpoint: str | None
    stop: threading.Event = field(default_factory=threading.Event)
    done_bytes: int = 0
    total_bytes: int = 0
    error: GLMError | None = None

    @property
    def fraction(self) -> float:
        return self.done_bytes / self.total_bytes if self.total_bytes else 0.0

    def run(self) -> None:
        import httpx2

        try:
            self._all_files()
        except GLMError as error:
            self.error = error
        except (httpx2.HTTPError, OSError, ValueError) as error:
            self.error = self._failure(error)

    def _all_files(self) -> None:
        with self._alone():
            if self.target.is_dir():
                return
            commit, files = self._listed()
            partial = self.target.with_name(f".{self.target.name}.partial")
            partial.mkdir(exist_ok=True)
            self.total_bytes = sum(file.size_bytes for file in files)
            self._check_room(partial, files)
            for file in files:
                self._fetch(file, partial, commit)
            self._check_stop()
            partial.rename(self.target)

    def _alone(self) -> FileLock:
        """One download of a model at a time; a process that dies gives the lock up."""
        lock = FileLock(self.target.with_name(f".{self.target.name}.lock"))
        while True:
            try:
                lock.acquire(timeout=_POLL_S)
                return lock
            except Timeout:
                self._check_stop()

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise Cancelled(what=Phrase("the download"))

    def _listed(self) -> tuple[str, list[RemoteFile]]:
        """The commit and the files that are needed, small ones first."""
        from huggingface_hub import HfApi

        info = HfApi(endpoint=self.endpoint).model_info(
            self.repo, files_metadata=True, timeout=_CONNECT_S
        )
        files = [
            RemoteFile(s.rfilename, s.size, s.blob_id or "", s.lfs.sha256 if s.lfs else None)
            for s in info.siblings or ()
            if s.size is not None and _is_wanted(s.rfilename)
        ]
        if any(file.name.endswith(".safetensors") for file in files):
            files = [file for file in files if ".bin" not in file.name]
        if not files or info.sha is None:
            raise self._failed(
                reason=Phrase("the repository has no model files"),
                remedy=Phrase("Choose another repository or mirror."),
            )
        return info.sha, sorted(files, key=lambda file: (file.size_bytes, file.name))

    def _check_room(self, partial: Path, files: list[RemoteFile]) -> None:
        kept = sum(path.stat().st_size for path in partial.iterdir())
        missing = self.total_bytes - kept
        free = shutil.disk_usage(partial).free
        if missing > free:
            needs = Phrase(
                "{missing:.1f} GB are to come and {free:.1f} GB of disk are free",
                missing=missing / 1e9,
                free=free / 1e9,
            )
            raise self._failed(
                reason=needs, remedy=Phrase("Free some space, or point GLM_MODEL_DIR elsewhere.")
            )

    def _fetch(self, file: RemoteFile, partial: Path, commit: str) -> None:
        """Brings one file, going on where an earlier attempt stopped."""
        final = partial / file.name
        before = self.done_bytes
        if not (final.is_file() and final.stat().st_size == file.size_bytes):
            part = partial / f"{file.name}.{(file.sha256 or file.tag)[:16]}.part"
            self._stream_until_whole(file, part, commit, before)
            self._verify(file, part)
            part.replace(final)
        self.done_bytes = before + file.size_bytes

    def _stream_until_whole(self, file: RemoteFile, part: Path, commit: str, before: int) -> None:
        import httpx2

        failures = 0
        while (have := part.stat().st_size if part.exists() else 0) < file.size_bytes:
            try:
                self._stream(file, part, commit, have, before)
            except (httpx2.TimeoutException, httpx2.NetworkError, httpx2.ProtocolError):
                grown = part.exists() and part.stat().st_size > have
                failures = 1 if grown else failures + 1
                if failures >= _ATTEMPTS:
                    raise
                self.stop.wait(_PAUSE_S)
                self._check_stop()
        part.touch()  # an empty file has no bytes to stream

    def _stream(self, file: RemoteFile, part: Path, commit: str, have: int, before: int) -> None:
        """One connection: appends to `part` from byte `have` on."""
        import httpx2
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        url = hf_hub_url(self.repo, file.name, revision=commit, endpoint=self.endpoint)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        timeout = httpx2.Timeout(_CONNECT_S, read=_SILENCE_S)
        with get_session().stream(
            "GET", url, headers=headers, timeout=timeout, follow_redirects=True
        ) as response:
            hf_raise_for_status(response)
            if response.status_code != 206:  # the server does not know ranges
                have = 0
            with part.open("ab" if have else "wb") as out:
                self._write(response, out.write, before + have)

    def _write(
        self, response: httpx2.Response, write: Callable[[bytes], int], done_bytes: int
    ) -> None:
        self.done_bytes = done_bytes
        for chunk in response.iter_bytes():
            self._check_stop()
            write(chunk)
            self.done_bytes += len(chunk)

    def _verify(self, file: RemoteFile, part: Path) -> None:
        """Size and, where the hub names it, SHA-256; a wrong file is thrown away."""
        wrong = part.stat().st_size != file.size_bytes
        if not wrong and file.sha256:
            with part.open("rb") as content:
                wrong = hashlib.file_digest(content, "sha256").hexdigest() != file.sha256
        if wrong:
            part.unlink()
            raise self._failed(
                reason=Phrase("{file} arrived damaged and was thrown away", file=file.name),
                remedy=Phrase("Start the download again."),
            )

    def _failed(self, *, reason: str, remedy: Phrase) -> DownloadFailed:
        from huggingface_hub import constants

        host = urlsplit(self.endpoint or constants.ENDPOINT).netloc
        return DownloadFailed(model=self.model, host=host, reason=reason, remedy=remedy)

    def _failure(self, error: Exception) -> DownloadFailed:
        """The library's error as what happened and what helps."""
        from huggingface_hub import errors

        by_hand = Phrase("or put the files into a folder and name that folder")
        if isinstance(error, errors.GatedRepoError):
            return self._failed(
                reason=Phrase("the repository is gated"),
                remedy=Phrase(
                    "Accept its terms there and set HF_TOKEN, {by_hand}.", by_hand=by_hand
                ),
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return self._failed(
                reason=Phrase(
                    "there is no repository {repo}, or it needs a sign-in", repo=self.repo
                ),
                remedy=Phrase("Check the name, set HF_TOKEN, {by_hand}.", by_hand=by_hand),
            )
        if isinstance(error, errors.HfHubHTTPError):
            return self._failed(
                reason=Phrase("it answered HTTP {code}", code=error.response.status_code),
                remedy=Phrase("Try again later, {by_hand}.", by_hand=by_hand),
            )
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return self._failed(
                reason=Phrase("the disk is full"),
                remedy=Phrase("Free some space and start it again."),
            )
        return self._failed(
            reason=str(error) or type(error).__name__,
            remedy=Phrase(
                "Check the network, or set HF_ENDPOINT to a mirror. What has arrived is kept."
            ),
        )


def _is_wanted(name: str) -> bool:
    """Model files at the top of the repository; a path with folders is never taken."""
    plain = name == Path(name).name and "\\" not in name and not name.startswith(".")
    return plain and name.endswith(_SUFFIXES) and name != "training_args.bin"
