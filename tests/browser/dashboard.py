"""A dashboard in a process of its own, as browser tests start it and kill it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "fake_dashboard.py"
REAL = ROOT / "Home.py"
_START_S = 60


class Dashboard:
    """One server process on a free port, over one data folder."""

    def __init__(self, data_dir: Path, launcher: Path = FAKE, **environ: str) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._launcher = launcher
        self._environ = {**os.environ, "GLM_DATA_DIR": str(data_dir), **environ}
        self._log = data_dir.parent / f"{data_dir.name}-{self.port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def start(self) -> Dashboard:
        """Returns once it answers."""
        self._process = self._begin()
        self.wait_for("/health")
        return self

    def run_to_end(self) -> int:
        """For one that ends by itself: its exit code."""
        return self._begin().wait(timeout=_START_S)

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "streamlit", "run", str(self._launcher)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--server.port", str(self.port)],
                cwd=ROOT,
                env=self._environ,
                stdout=log,
                stderr=log,
            )

    def wait_for(self, path: str) -> None:
        """Waits until `path` answers with success."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(self.url + path, timeout=5):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise TimeoutError(f"{path} did not answer; the log says:\n{self.log}")

    def kill(self) -> None:
        """As a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Asks it to end; returns its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code = self._process.wait(timeout=30)
        self._process = None
        return code


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
