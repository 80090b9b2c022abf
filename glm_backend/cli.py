"""`python -m glm_backend …`: what can be done without the pages.

Data on stdout, words for people on stderr. Exit codes: 0 done, 1 the work failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from glm_backend.errors import GLMError, SettingsError
from glm_backend.models.catalog import CATALOG, entry_of
from glm_backend.models.checkpoint import Checkpoint
from glm_backend.models.model import QUANTIZATIONS
from glm_backend.progress import ProgressLine
from glm_backend.services import Services
from glm_backend.settings import Settings
from glm_backend.transfer_commands import add_export, add_import

#: The published names, which the originals' welcome lines have, by family.
_PUBLISHED = {"chatglm": "ChatGLM-6B", "chatglm2": "ChatGLM2-6B", "chatglm3": "ChatGLM3-6B"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character, or sends what is none in its encoding.
            stream.reconfigure(errors="replace")
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(Settings.load(), arguments))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except GLMError as error:
        sys.stderr.write(f"{error}\n")
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        sys.stderr.write(f"{error}\n")
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m glm_backend", description=__doc__)
    commands = parser.add_subparsers(metavar="command", required=True)

    chat = commands.add_parser("chat", help="chat in the terminal")
    _add_model(chat)
    chat.set_defaults(run=_chat)

    serve = commands.add_parser("serve", help="the API without the pages")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=_port, default=8000)
    _add_model(serve)
    serve.set_defaults(run=_serve)

    gradio = commands.add_parser("gradio", help="the original web demo (needs gradio)")
    _add_model(gradio)
    gradio.set_defaults(run=_gradio)

    models = commands.add_parser("models", help="models one can pick")
    _add_models(models.add_subparsers(metavar="command", required=True))

    add_export(commands)
    add_import(commands)
    _add_upkeep(commands)
    return parser


def _add_upkeep(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backup = commands.add_parser("backup", help="a copy of the database, while it is used")
    backup.add_argument(
        "file", type=Path, nargs="?", help="a new one in the data folder without it"
    )
    backup.set_defaults(run=_backup)
    restore = commands.add_parser("restore", help="make a backup the database again")
    restore.add_argument("file", type=Path)
    restore.set_defaults(run=_restore)
    bench = commands.add_parser("bench", help="the benchmarks of a checkout, all or by name")
    bench.add_argument("names", nargs="*", metavar="name")
    bench.set_defaults(run=_bench)
    doctor = commands.add_parser("doctor", help="what is installed, what fits, what is wrong")
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(run=_doctor)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    listing = commands.add_parser("list", help="the catalogue")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_models_list)
    info = commands.add_parser("info", help="one model, and what it needs here")
    info.add_argument("model", help="a catalogue name or a folder")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_models_info)
    pull = commands.add_parser("pull", help="bring a model onto this machine")
    pull.add_argument("model", help="a catalogue name, or owner/name on the hub")
    pull.set_defaults(run=_models_pull)
    convert = commands.add_parser("convert", help="keep a model in few bits: loads in seconds")
    convert.add_argument("model", help="a catalogue name, a folder or owner/name on the hub")
    convert.add_argument("--quantization", choices=QUANTIZATIONS[1:], default="int8")
    convert.add_argument("--to", type=Path, metavar="FOLDER", help="a new one beside the models")
    convert.add_argument("--family", choices=list(_PUBLISHED), help="of a folder that does not say")
    convert.set_defaults(run=_models_convert)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="a catalogue name, a folder or owner/name (GLM_MODEL)")
    parser.add_argument("--quantization", choices=QUANTIZATIONS)
    parser.add_argument("--family", choices=list(_PUBLISHED), help="of a folder that does not say")
    parser.add_argument("--ptuning", metavar="FOLDER", help="a prefix trained for the model")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return int(text)


# --- what talks to a model


def _chosen(settings: Settings, arguments: argparse.Namespace) -> Settings:
    """The settings with the model that the command line names."""
    return replace(
        settings,
        model=arguments.model or settings.model,
        quantization=arguments.quantization or settings.quantization,
        family=arguments.family or settings.family,
        ptuning=arguments.ptuning or settings.ptuning,
    )


@contextmanager
def _services(settings: Settings) -> Iterator[Services]:
    services = Services(settings)
    try:
        yield services
    finally:
        services.close()


def _load(services: Services) -> None:
    """Loads the model with a progress line; raises what the load ended with."""
    services.load_default_model()
    if services.is_remote:
        return
    with ProgressLine() as line:
        while (status := services.models.wait(0.2)).state == "loading":
            line.report(status.stage, status.fraction)
    if status.error is not None:
        raise status.error


def _title(services: Services) -> str:
    facts = None if services.is_remote else services.models.status().model
    family = facts.family if facts is not None else ""
    return _PUBLISHED.get(family, services.model().name)


def _chat(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.terminal import TerminalChat, remembered_questions

    with _services(_chosen(settings, arguments)) as services:
        _load(services)
        with remembered_questions(settings.data_dir / "terminal_history"):
            well = TerminalChat(services.model(), _title(services)).run()
    # In a script the exit code tells; a person at a terminal has read it.
    return 0 if well or sys.stdin.isatty() else 1


def _serve(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.api.server import serve

    with _services(_chosen(settings, arguments)) as services:
        return serve(services, arguments.host, arguments.port)


def _gradio(settings: Settings, arguments: argparse.Namespace) -> int:
    try:
        from glm_backend.gradio_demo import launch
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        sys.stderr.write("Gradio is not installed: pip install -r requirements-gradio.txt\n")
        return 1
    with _services(_chosen(settings, arguments)) as services:
        _load(services)
        launch(services.model(), _title(services))
    return 0


# --- models


def _models_list(settings: Settings, arguments: argparse.Namespace) -> int:
    folder = settings.resolved_model_dir
    here = {model_id: (folder / model_id).is_dir() for model_id in CATALOG}
    if arguments.json:
        rows = [asdict(e) | {"here": here[e.id]} for e in CATALOG.values()]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return 0
    for entry in CATALOG.values():
        size = f"{entry.download_bytes / 1e9:.1f} GB" if entry.download_bytes else "installed"
        state = "here" if here[entry.id] else size
        print(f"{entry.id:<18} {entry.title:<22} {entry.context_length:>7} tokens  {state}")
    return 0


def _models_info(settings: Settings, arguments: argparse.Namespace) -> int:
    """Facts of the catalogue or of the folder, and what each precision needs here."""
    from glm_backend.doctor import memory_needed

    facts = _facts(arguments.model, settings)
    memory = {way: asdict(needs) for way, needs in memory_needed(arguments.model, settings).items()}
    if arguments.json:
        print(json.dumps(facts | {"memory": memory}, ensure_ascii=False, indent=2))
        return 0
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, tuple) else value
        print(f"{name:<16} {shown}")
    for quantization, needs in memory.items():
        fits = "fits" if needs["fits"] else "does not fit"
        needed, free = (f"{needs[k] / 1e9:.1f} GB" for k in ("needed_bytes", "available_bytes"))
        print(f"memory {quantization:<9} {needed} of {free} free: {fits}")
    return 0


def _facts(model: str, settings: Settings) -> dict[str, object]:
    from glm_backend.models.loader import local_folder, refuse_hopeless

    if (entry := entry_of(model)) is not None:
        names = ("id", "title", "family", "context_length", "parameters", "licence", "languages")
        facts = {name: getattr(entry, name) for name in names}
        here = local_folder(model, model_dir=settings.resolved_model_dir) is not None
        return facts | {"here": here}
    refuse_hopeless(model, model_dir=settings.resolved_model_dir)
    folder = local_folder(model, model_dir=settings.resolved_model_dir)
    if folder is None:  # a repository that was not fetched yet
        return {"id": model, "title": model, "here": False}
    config = Checkpoint.open(folder, model=model).config
    return {"id": model, "title": folder.name, "model_type": config["model_type"], "here": True}


def _prepared(settings: Settings, model: str, family: str | None, line: ProgressLine) -> Checkpoint:
    """Brings a model onto this machine, with progress."""
    from glm_backend.models.loader import prepare

    return prepare(
        model,
        family=family,
        model_dir=settings.resolved_model_dir,
        on_progress=line.report,
        hub_endpoint=settings.hub_endpoint or None,
    )


def _models_pull(settings: Settings, arguments: argparse.Namespace) -> int:
    settings.make_data_dir()
    with ProgressLine() as line:
        checkpoint = _prepared(settings, arguments.model, None, line)
    print(checkpoint.folder)
    return 0


def _models_convert(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.models.convert import convert

    settings.make_data_dir()
    with ProgressLine() as line:
        checkpoint = _prepared(settings, arguments.model, arguments.family, line)
        name = f"{checkpoint.folder.name}.{arguments.quantization}"
        kept = arguments.to or settings.resolved_model_dir / name
        convert(
            checkpoint,
            kept,
            arguments.quantization,
            model=arguments.model,
            on_progress=line.report,
        )
    print(kept)
    return 0


# --- upkeep


def _backup(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.store.backup import back_up

    file = arguments.file
    if file is None:
        settings.make_data_dir()
        file = settings.data_dir / "backups" / f"glm-{datetime.now(UTC):%Y%m%d-%H%M%S}.sqlite3"
        file.parent.mkdir(exist_ok=True)
    with ProgressLine() as line:
        back_up(settings.resolved_database_url, file, lambda done: line.report("copying", done))
    print(file)
    return 0


def _restore(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.store.restore import restore

    settings.make_data_dir()
    url = settings.resolved_database_url
    with ProgressLine() as line:
        kept = restore(
            url,
            arguments.file,
            lambda: datetime.now(UTC),
            lambda done: line.report("copying", done),
        )
    sys.stderr.write(f"{arguments.file} is the database now.\n")
    if kept is not None:
        sys.stderr.write("The one that it replaced is kept:\n")
        print(kept)
    return 0


def _bench(settings: Settings, arguments: argparse.Namespace) -> int:
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "benchmarks" / "__main__.py").is_file():
        sys.stderr.write(f"The benchmarks come with the source, which is not at {checkout}.\n")
        return 1
    return subprocess.call([sys.executable, "-m", "benchmarks", *arguments.names], cwd=checkout)


def _doctor(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.doctor import look

    report = look(settings)
    if arguments.json:
        print(json.dumps(report.values(), ensure_ascii=False, indent=2))
    else:
        for line in report.lines():
            print(line)
    return 0 if report.ok else 1
