"""An export on its way to a file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from glm_backend.transfer import export_file


def test_a_pipe_is_written_into_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    export_file(pipe, iter([b"one ", b"two"]))
    reader.join(10)
    assert read == [b"one two"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
