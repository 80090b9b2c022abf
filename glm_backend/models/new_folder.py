"""A folder that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from safetensors import SafetensorError

from glm_backend.errors import FileExists, FolderNotWritten

_SUFFIX = ".partial"


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which becomes `target` by one rename when the block ends well.

    When it does not, nothing stays; what a process that was killed left behind is removed by the
    next one. Of two processes with one target each has a folder of its own, and the first is kept.
    Raises FileExists, and FolderNotWritten where the disk is full.
    """
    scratch = target.with_name(f".{target.name}.{os.getpid()}{_SUFFIX}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_what_was_left(target)
        scratch.mkdir()
        yield scratch
        if target.exists():
            raise FileExists(file=str(target))
        scratch.rename(target)
    except (OSError, SafetensorError) as error:  # the second is a full disk, too
        raise FolderNotWritten(folder=str(target), reason=str(error)) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _remove_what_was_left(target: Path) -> None:
    for folder in target.parent.glob(f".*{_SUFFIX}"):
        name, _, process = folder.name.removesuffix(_SUFFIX).rpartition(".")
        ours = name == f".{target.name}" and process.isdecimal()
        if ours and (int(process) == os.getpid() or not psutil.pid_exists(int(process))):
            shutil.rmtree(folder, ignore_errors=True)
