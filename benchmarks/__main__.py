"""Runs all benchmarks, or those named: python -m benchmarks [decoding] [exports] [pages]"""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.report import keep, table

ALL = ("decoding", "exports", "pages")


def main(names: list[str]) -> int:
    unknown = set(names) - set(ALL)
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or ALL:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += import_module(f"benchmarks.{name}").rows()
    print(table(rows))
    print(f"\nkept in {keep(rows).name}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
