"""`python -m glm_backend …`: what can be done without the pages.

Data on stdout, words for people on stderr. Exit codes: 0 done, 1 the work failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO

from glm_backend.errors import GLMError, SettingsError
from glm_backend.models.catalog import CATALOG
from glm_backend.progress import ProgressLine
from glm_backend.services import LOCAL_USER, Services
from glm_backend.settings import Settings

#: The published names, which the originals' welcome lines have, by family.
_PUBLISHED = {"chatglm": "ChatGLM-6B", "chatglm2": "ChatGLM2-6B", "chatglm3": "ChatGLM3-6B"}
_QUANTIZATIONS = ("none", "int8", "int4")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character
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

    export = commands.add_parser("export", help="conversations as a file")
    export.add_argument("--format", choices=("csv", "json"), required=True)
    export.add_argument("--output", type=Path, metavar="FILE", help="stdout without it")
    export.add_argument("--conversation", nargs="+", action="extend", metavar="ID")
    export.add_argument("--bom", action="store_true", help="CSV for Excel")
    export.set_defaults(run=_export, parser=export)
    return parser


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    listing = commands.add_parser("list", help="the catalogue")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=_models_list)
    info = commands.add_parser("info", help="one model, and what it needs here")
    info.add_argument("model", help="a catalogue name or a folder")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=_models_info)
    pull = commands.add_parser("pull", help="bring a model onto this machine")
    pull.add_argument("model", choices=list(CATALOG), metavar="model")
    pull.set_defaults(run=_models_pull)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="a catalogue name or a folder (GLM_MODEL)")
    parser.add_argument("--quantization", choices=_QUANTIZATIONS)


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
            TerminalChat(services.model(), _title(services)).run()
    return 0


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
    facts = _facts(arguments.model, settings)
    memory = _memory(arguments.model, settings)
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
    from glm_backend.models.checkpoint import Checkpoint
    from glm_backend.models.loader import local_folder, refuse_hopeless

    if model in CATALOG:
        entry = CATALOG[model]
        names = ("id", "title", "family", "context_length", "parameters", "licence", "languages")
        facts = {name: getattr(entry, name) for name in names}
        return facts | {"here": (settings.resolved_model_dir / model).is_dir()}
    refuse_hopeless(model, model_dir=settings.resolved_model_dir)
    folder = local_folder(model, model_dir=settings.resolved_model_dir)
    assert folder is not None, "what is neither listed nor a folder was refused above"
    config = Checkpoint.open(folder, model=model).config
    return {"id": model, "title": folder.name, "model_type": config["model_type"], "here": True}


def _memory(model: str, settings: Settings) -> dict[str, dict[str, int]]:
    from glm_backend.language_model import LanguageModel
    from glm_backend.models.manager import ModelManager, ModelRequest
    from glm_backend.models.model import Quantization

    manager = ModelManager(LanguageModel, model_dir=settings.resolved_model_dir)
    ways: tuple[Quantization, ...] = ("none", "int8", "int4")
    return {way: asdict(manager.estimate(ModelRequest(model, way))) for way in ways}


def _models_pull(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.models.loader import prepare

    settings.make_data_dir()
    with ProgressLine() as line:
        checkpoint = prepare(
            arguments.model,
            model_dir=settings.resolved_model_dir,
            on_progress=line.report,
            hub_endpoint=settings.hub_endpoint or None,
        )
    print(checkpoint.folder)
    return 0


# --- conversations


def _export(settings: Settings, arguments: argparse.Namespace) -> int:
    from glm_backend.store.store import Store
    from glm_backend.transfer import export_csv, export_json

    if arguments.bom and arguments.format != "csv":
        arguments.parser.error("--bom is for csv")
    settings.make_data_dir()
    with contextlib.closing(Store.open(settings.resolved_database_url)) as store:
        user, ids = store.ensure_user(LOCAL_USER), arguments.conversation
        if arguments.format == "csv":
            chunks = export_csv(store, user, ids, bom=arguments.bom)
        else:
            chunks = export_json(store, user, ids)
        with _written(arguments.output) as out:
            for chunk in chunks:
                out.write(chunk)
            out.flush()
    return 0


@contextmanager
def _written(path: Path | None) -> Iterator[BinaryIO]:
    """Where the data goes. A file appears whole or not at all."""
    if path is None:
        yield sys.stdout.buffer
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as out:
            yield out
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
