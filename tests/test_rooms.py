"""The ways between the rooms: who may import whom (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "glm_backend"

#: What each room may import of the others; everybody may import errors.
MAY_IMPORT = {
    "native": set(),
    "engine": {"native"},
    "models": {"native", "threads"},
    "store": set(),
    "transfer": {"readable", "store"},
    "completion": {"engine", "models"},
    "context": {"completion", "engine", "models"},
    "language_model": {"completion", "engine", "models", "settings", "threads"},
    "remote_model": {"completion", "engine", "models", "readable"},
    "live_answer": {"engine", "readable", "store"},
    "recorder": {"live_answer", "store"},
    "eraser": {"store"},
    "readable": set(),
    "chat_parameters": {"engine", "models", "readable"},
    "chat": {
        "chat_parameters",
        "completion",
        "context",
        "engine",
        "eraser",
        "live_answer",
        "models",
        "readable",
        "recorder",
        "store",
    },
    "settings": set(),
    "threads": set(),
    "services": {
        "chat",
        "completion",
        "engine",
        "language_model",
        "models",
        "remote_model",
        "settings",
        "store",
        "threads",
    },
    "testing": {"completion", "engine", "models"},
    "drop_in": {"engine", "language_model", "models", "settings", "threads"},
    "doctor": {
        "language_model",
        "models",
        "native",
        "remote_model",
        "services",
        "settings",
        "store",
    },
    "progress": set(),
    "transfer_commands": {"progress", "services", "settings", "store", "transfer"},
    "terminal": {"completion", "context", "engine", "models"},
    "gradio_demo": {"completion", "context", "engine", "models"},
    "api": {"chat", "completion", "engine", "models", "services", "store", "transfer"},
}


def modules_under(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*.py")) if "migrations/versions" not in p.as_posix()]


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules_under(ROOT / PACKAGE), ids=str)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__", "cli"):
        return
    inside = {name.split(".")[1] for name in imports_of(path) if name.startswith(f"{PACKAGE}.")}
    assert inside <= MAY_IMPORT.get(room, set()) | {room, "errors"}


@pytest.mark.parametrize("path", modules_under(ROOT / PACKAGE), ids=str)
def test_the_backend_knows_no_streamlit(path: Path) -> None:
    assert not {name for name in imports_of(path) if name.split(".")[0].startswith("streamlit")}


@pytest.mark.parametrize("path", modules_under(ROOT / "pages"), ids=str)
def test_pages_reach_the_backend_through_ui_and_chat(path: Path) -> None:
    inside = {name for name in imports_of(path) if name.startswith(PACKAGE)}
    rooms = {name.split(".")[1] for name in inside if "." in name}
    assert rooms <= {"chat", "errors", "live_answer", "models", "services", "store"}


def test_every_room_is_known() -> None:
    rooms = {room_of(path) for path in modules_under(ROOT / PACKAGE)}
    assert rooms - {"__init__", "__main__", "cli", "errors"} == set(MAY_IMPORT)
