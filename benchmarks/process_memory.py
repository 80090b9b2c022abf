"""What this process takes. What getrusage tells of a child begins with the peak of its parent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal


def memory_bytes(what: Literal["VmRSS", "VmHWM"]) -> int:
    """What it takes now, or took at most (proc(5))."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(re.search(rf"{what}:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]
