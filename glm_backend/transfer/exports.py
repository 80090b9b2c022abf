"""The one way out: what is chosen, in one of the forms, as chunks of one file.

The pages, the command line and the routes all come through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from glm_backend.errors import InvalidParameter, Phrase
from glm_backend.store import Store
from glm_backend.store.values import Reader
from glm_backend.transfer.csv_export import write_csv
from glm_backend.transfer.datapackage import write_datapackage
from glm_backend.transfer.json_export import write_json, write_jsonl
from glm_backend.transfer.markdown_export import write_markdown
from glm_backend.transfer.parquet_export import write_parquet
from glm_backend.transfer.selection import Selection
from glm_backend.transfer.source import Progress, Source
from glm_backend.transfer.training_export import write_openai, write_sharegpt

_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}".encode()  # without it Excel takes UTF-8 for something else


@dataclass(frozen=True, slots=True)
class ExportForm:
    """One form of file. linear: it says turns one after another, and takes the shown branch."""

    name: str
    extension: str
    media_type: str
    write: Callable[[Source], Iterator[bytes]]
    linear: bool = False

    def file_name(self, selection: Selection) -> str:
        """Which one or of which day; forms of other programs that end like ours are named, too."""
        ids = selection.conversation_ids or ()
        name = f"conversation-{ids[0][:12]}" if len(ids) == 1 else f"conversations-{date.today()}"
        own = next(form for form in _ALL if form.extension == self.extension)
        return f"{name}{'' if own is self else f'-{self.name}'}.{self.extension}"


_ALL = (
    ExportForm("csv", "csv", "text/csv; charset=utf-8", write_csv),
    ExportForm("datapackage", "zip", "application/zip", write_datapackage),
    ExportForm("json", "json", "application/json", write_json),
    ExportForm("jsonl", "jsonl", "application/jsonl", write_jsonl),
    ExportForm("parquet", "parquet", "application/vnd.apache.parquet", write_parquet),
    ExportForm("markdown", "md", "text/markdown; charset=utf-8", write_markdown, linear=True),
    ExportForm("sharegpt", "json", "application/json", write_sharegpt, linear=True),
    ExportForm("openai", "jsonl", "application/jsonl", write_openai, linear=True),
)

#: By name, as the command line and the routes have it.
EXPORT_FORMS = {form.name: form for form in _ALL}


def export(
    store: Store,
    user_id: Reader,
    form: str,
    selection: Selection | None = None,
    *,
    bom: bool = False,
    on_progress: Progress = lambda _: None,
) -> Iterator[bytes]:
    """The user's conversations as chunks of one file, read as they are taken.

    form: a name of EXPORT_FORMS. bom: a CSV for Excel. on_progress: is told how much is done.
    Raises UnknownConversation and InvalidParameter at once, before the first chunk.
    """
    chosen = selection or Selection()
    known = EXPORT_FORMS.get(form)
    if known is None:
        names = ", ".join(EXPORT_FORMS)
        allowed = Phrase("one of {names}", names=names)
        raise InvalidParameter(name="format", value=repr(form[:40]), allowed=allowed)
    if bom and form != "csv":
        allowed = Phrase("false for everything but csv")
        raise InvalidParameter(name="bom", value="true", allowed=allowed)
    ids = store.select_conversations(user_id, chosen.conversation_ids, chosen.filter)
    shown_only = known.linear if chosen.shown_only is None else chosen.shown_only
    chunks = known.write(Source(store, user_id, ids, shown_only, on_progress))
    return _marked(chunks) if bom else chunks


def export_file(path: Path, chunks: Iterator[bytes]) -> None:
    """Writes an export to a file, which appears whole or not at all; into a pipe or a device."""
    if path.exists() and not path.is_file():
        with path.open("wb") as out:
            out.writelines(chunks)
        return
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as out:
            out.writelines(chunks)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _marked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield _BOM
    yield from chunks
