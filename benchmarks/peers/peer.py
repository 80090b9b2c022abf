"""A peer in a process of its own, asked over its pipes: a line of JSON in, a line of JSON out.

Its own process, because two libraries of kernels in one get in each other's way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any

from glm_backend.threads import KERNEL_SETTINGS


class Peer:
    """Starts `python -m benchmarks.peers.<name> arguments` and asks it."""

    def __init__(self, name: str, *arguments: str) -> None:
        # What this package sets for itself is not forced on others.
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.peers.{name}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in KERNEL_SETTINGS},
        )
        self._answer()  # it has loaded its model

    def ask(self, what: str, **numbers: int) -> Any:
        """Has it do something; gives what it measured, in seconds where it is a time."""
        self._pipe(self._process.stdin).write(json.dumps({"what": what, **numbers}) + "\n")
        self._pipe(self._process.stdin).flush()
        return self._answer()

    def close(self) -> None:
        """Ends it, and waits until its memory is free."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            self._pipe(pipe).close()

    def _answer(self) -> Any:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return json.loads(line)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def serve(answers: dict[str, Callable[..., Any]]) -> None:
    """The peer's side: says that it is ready, then answers until its input ends."""
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        numbers = json.loads(line)
        print(json.dumps(answers[numbers.pop("what")](**numbers)), flush=True)
