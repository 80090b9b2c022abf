"""What a benchmark hands in: rows with a figure, what it stands against, and the goal."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `met` is None where there is no goal."""

    what: str
    figure: str
    against: str = ""
    goal: str = ""
    met: bool | None = None


def median(measure: Callable[[], float], runs: int = 5) -> float:
    """The median of several runs."""
    return statistics.median(measure() for _ in range(runs))


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    mark = {None: "", True: "yes", False: "**no**"}
    lines = ["| what | figure | against | goal | met |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.figure} | {r.against} | {r.goal} | {mark[r.met]} |" for r in rows]
    return "\n".join(lines)


def keep(rows: Sequence[Row]) -> Path:
    """Writes the rows as JSON, with the machine and the time they were taken."""
    now = datetime.now(UTC)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{now:%Y%m%d-%H%M%S}.json"
    machine = {"processor": _processor(), "python": platform.python_version()}
    report = {"taken_at": now.isoformat(), "machine": machine, "rows": [asdict(r) for r in rows]}
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
