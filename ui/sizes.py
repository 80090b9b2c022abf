"""Numbers of bytes as people read them."""

from __future__ import annotations


def memory_size(size_bytes: int) -> str:
    """Of a model or of memory, always in one unit, so that they compare: 0.54 GB, 12.4 GB."""
    gigabytes = size_bytes / 1e9
    return f"{gigabytes:.2f} GB" if gigabytes < 10 else f"{gigabytes:.1f} GB"


def file_size(size_bytes: int) -> str:
    """Of a file: 12 KB, 3.4 MB, 5.0 GB."""
    for unit, divisor in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= divisor:
            return f"{size_bytes / divisor:.1f} {unit}"
    return f"{-(-size_bytes // 1000)} KB"
