"""Runs all benchmarks, or those named: python -m benchmarks starter history"""

from __future__ import annotations

import sys
import time
import traceback
from importlib import import_module

from benchmarks.report import keep, table

ALL = (
    "starter",
    "serving",
    "guessing",
    "tailing",
    "quality",
    "exports",
    "history",
    "history_page",
    "pages",
)

#: Minutes each: `make bench-6b`, and `make bench-long` for the others, which only say yes or no.
APART = ("chatglm_6b", "durability", "company")


def main(names: list[str]) -> int:
    unknown = set(names) - set(ALL) - set(APART)
    if unknown:
        known = ", ".join((*ALL, *APART))
        print(f"unknown: {', '.join(sorted(unknown))}; there are {known}", file=sys.stderr)
        return 2
    rows, failed = [], False
    for name in names or ALL:
        print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
        began = time.perf_counter()
        try:
            rows += import_module(f"benchmarks.{name}").rows()
        except Exception:  # what the others measured is not lost
            failed = True
            traceback.print_exc()
        print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print(table(rows))
    print(f"\nkept in {keep(rows).name}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
