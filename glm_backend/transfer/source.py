"""What an export is made from: the chosen conversations, read as they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from glm_backend.store import Store
from glm_backend.store.columns import timestamp_text
from glm_backend.store.stream import Rows
from glm_backend.store.values import Reader

_CHUNK_BYTES = 64 * 1024
_REPORTS = 200  # so often is progress told

#: Is told how much is done, from 0 to 1.
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Source:
    """Conversations that a user may read, in one order, with every branch or the shown one."""

    store: Store
    user_id: Reader
    conversation_ids: Sequence[str]
    shown_only: bool
    on_progress: Progress

    def read(self, columns: Sequence[str]) -> Iterator[tuple[dict[str, Any], Iterator[Rows]]]:
        """Each conversation with the rows of its messages, which are to be taken at once."""
        total = len(self.conversation_ids)
        every = max(1, total // _REPORTS)
        streamed = self.store.stream(
            self.user_id, self.conversation_ids, columns, shown_only=self.shown_only
        )
        for done, pair in enumerate(streamed):
            if done % every == 0:
                self.on_progress(done / total)
            yield pair
        self.on_progress(1.0)

    def now(self) -> str:
        """The present time as the wire form has it."""
        return timestamp_text(self.store.now())


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in chunks that are worth a write."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > _CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class Outlet:
    """A file that is only written to, for libraries that write files: handed on piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes | memoryview) -> int:
        self._pieces.append(bytes(piece))
        return len(self._pieces[-1])

    def flush(self) -> None:
        """Nothing stands between."""

    def close(self) -> None:
        """There is nothing to give back."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
