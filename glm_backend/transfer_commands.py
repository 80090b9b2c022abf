"""`python -m glm_backend export` and `import`."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from glm_backend.errors import GLMError
from glm_backend.progress import ProgressLine
from glm_backend.services import LOCAL_USER
from glm_backend.settings import Settings
from glm_backend.store.store import Store
from glm_backend.transfer import (
    EXPORT_FORMS,
    IMPORT_FORMS,
    SELECTION_WORDS,
    ImportReport,
    Selection,
    export,
    export_file,
    import_file,
)

_EXPORT_HELP = {
    "conversation": "these conversations (all that match without it)",
    "branch": "all or shown (markdown, sharegpt and openai take the shown one by themselves)",
    "text": "words in the title or in a message",
    "since": "changed at or after this time, as 2026-11-24 or 2026-11-24T01:50:00+08:00",
    "until": "begun before this time",
    "model": "answered by this model",
    "quantization": "with an answer of this precision",
    "status": "with an answer of this status",
    "rating": "with an answer rated 1 or -1",
    "tag": "with this tag",
    "pinned": "true or false",
    "archived": "true or false",
    "trash": "true: those in the trash",
}
_LISTED = 20  # entries that are shown to a person


def add_export(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `export`."""
    parser = commands.add_parser("export", help="conversations as a file")
    parser.add_argument("--format", choices=list(EXPORT_FORMS), required=True)
    parser.add_argument("--output", type=Path, metavar="FILE", help="stdout without it")
    parser.add_argument("--user", help="whose (the one user there is without sign-in)")
    parser.add_argument("--bom", action="store_true", help="CSV for Excel")
    for word in SELECTION_WORDS:
        many = {"nargs": "+", "metavar": "ID"} if word == "conversation" else {"nargs": 1}
        parser.add_argument(f"--{word}", **many, action="extend", help=_EXPORT_HELP[word])
    parser.set_defaults(run=_export, parser=parser)


def add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `import`."""
    parser = commands.add_parser("import", help="conversations from a file")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--format", choices=IMPORT_FORMS, default="auto")
    parser.add_argument("--dry-run", action="store_true", help="only say what would happen")
    parser.add_argument("--json", action="store_true", help="the report on stdout, for a script")
    parser.set_defaults(run=_import)


def _export(settings: Settings, arguments: argparse.Namespace) -> int:
    words = {word: getattr(arguments, word) for word in SELECTION_WORDS}
    given = {word: values for word, values in words.items() if values is not None}
    try:
        selection = Selection.from_words(given)
    except GLMError as error:
        arguments.parser.error(str(error))
    if arguments.bom and arguments.format != "csv":
        arguments.parser.error("--bom is for csv")
    with _opened(settings) as store, ProgressLine() as line:
        user = arguments.user
        chunks = export(
            store,
            store.ensure_user(LOCAL_USER) if user is None else store.user_named(user),
            arguments.format,
            selection,
            bom=arguments.bom,
            on_progress=_reporting(line, "exporting"),
        )
        if arguments.output is not None:
            export_file(arguments.output, chunks)
        else:
            sys.stdout.buffer.writelines(chunks)
            sys.stdout.buffer.flush()
    return 0


def _import(settings: Settings, arguments: argparse.Namespace) -> int:
    with _opened(settings) as store, arguments.file.open("rb") as file, ProgressLine() as line:
        report = import_file(
            store,
            store.ensure_user(LOCAL_USER),
            file,
            arguments.format,
            dry_run=arguments.dry_run,
            on_progress=_reporting(line, "importing"),
        )
    sys.stderr.write("\n".join(_told(report)) + "\n")
    if arguments.json:
        sys.stdout.write(json.dumps(report.values(), ensure_ascii=False, indent=2) + "\n")
    return 1 if report.failed else 0


def _opened(settings: Settings) -> contextlib.closing[Store]:
    settings.make_data_dir()
    return contextlib.closing(Store.open(settings.resolved_database_url))


def _reporting(line: ProgressLine, stage: str) -> Callable[[float], None]:
    return lambda fraction: line.report(stage, fraction)


def _told(report: ImportReport) -> Sequence[str]:
    """The report for a person: counts, then what was not simply taken."""
    lines = [_summary(report)]
    remarkable = [e for e in report.entries if e.outcome == "refused" or e.notes]
    for entry in remarkable[:_LISTED]:
        title = f" {entry.title!r}" if entry.title else ""
        why = "; ".join([str(entry.error)] if entry.error else [str(n) for n in entry.notes])
        lines.append(f"  {entry.position}.{title}: {entry.outcome}: {why}")
    if len(remarkable) > _LISTED:
        lines.append(f"  and {len(remarkable) - _LISTED} more (--json lists them)")
    return lines


def _summary(report: ImportReport) -> str:
    counts = report.counts
    taken = "would be imported" if report.dry_run else "imported"
    parts = [f"{counts['imported']} conversations with {report.messages} messages {taken}"]
    if counts["known"]:
        parts.append(f"{counts['known']} were here already")
    if counts["trash"]:
        parts.append(f"{counts['trash']} are in the trash")
    if counts["refused"]:
        parts.append(f"{counts['refused']} cannot be taken")
    return ", ".join(parts) + "."
