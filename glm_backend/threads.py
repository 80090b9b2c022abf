"""How many threads the kernels of this process get."""

from __future__ import annotations

import os

import psutil


def kernel_threads() -> int:
    """All cores but one, which the web server and the readers share.

    Kernel threads wait for each other by spinning; when one of them has lost its core to another
    thread, every operation waits for the scheduler. Measured on two cores with one other busy
    process: 64 ms a token with one thread, 266 to 2,900 ms with two.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(usable or 1, psutil.cpu_count(logical=False) or 1) - 1)
