"""A file on its way in: uploaded, looked through first, then taken, with a report."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

import pandas as pd
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from glm_backend.services import Services
from glm_backend.transfer import Entry, ImportReport, import_file
from ui.frame import plain_error
from ui.job import Job, Progress, has_ended
from ui.labels import error_text, said, t
from ui.safe_markdown import plain
from ui.sizes import file_size

_KEY = "history_importing"
_TABLE_ROWS = 300


class Importing:
    """One file from its upload to its report, kept on disk: the upload's memory is given back."""

    def __init__(self, services: Services, uploaded: UploadedFile) -> None:
        self.name = uploaded.name
        self.size_bytes = uploaded.size
        self._services = services
        # Beside the database: the system's own folder may be a part of the memory.
        self._file = cast(
            BinaryIO,
            tempfile.TemporaryFile(dir=services.settings.data_dir),  # noqa: SIM115  (for as long as this)
        )
        weakref.finalize(self, self._file.close)  # which a job that still reads puts off
        shutil.copyfileobj(uploaded, self._file)
        self.preview = self._job(dry_run=True)
        self.taken: Job[ImportReport] | None = None

    def take(self) -> None:
        """Begins to write it to the store. A second click meanwhile would read the file, too."""
        if self.taken is not None and not self.taken.ended:
            return
        self.taken = self._job(dry_run=False)
        begun()[self._services.user_id] = self

    def forget(self) -> None:
        """Its report was read, or it is not wanted."""
        self.preview.stop()
        st.session_state.pop(_KEY, None)
        if begun().get(self._services.user_id) is self:
            del begun()[self._services.user_id]

    def _job(self, *, dry_run: bool) -> Job[ImportReport]:
        def read(report: Progress) -> ImportReport:
            store, user_id = self._services.store, self._services.user_id
            return import_file(store, user_id, self._file, dry_run=dry_run, on_progress=report)

        return Job(read, self.name)


@st.cache_resource(show_spinner=False)
def begun() -> dict[str, Importing]:
    """The import that each user began last, until its report was read.

    It goes on when its tab is closed or reloaded, and is found here again.
    """
    return {}


def draw_import(services: Services, *, expanded: bool) -> None:
    """The upload, or how far the file is that was uploaded."""
    importing: Importing | None = st.session_state.get(_KEY) or begun().get(services.user_id)
    with st.expander(
        t("import.title"),
        expanded=expanded or importing is not None,
        icon=":material/upload:",
        key="history_import_box",
    ):
        if importing is None:
            _draw_upload(services)
        elif importing.taken is not None:
            _draw_taken(importing, importing.taken)
        else:
            _draw_preview(importing)


def _draw_upload(services: Services) -> None:
    st.caption(t("import.forms"))
    uploaded = st.file_uploader(
        t("import.file"),
        type=["json", "jsonl", "csv", "txt"],
        key="history_import",
        label_visibility="collapsed",
    )
    st.caption(t("import.larger", megabytes=st.get_option("server.maxUploadSize")))
    if uploaded is not None:
        st.session_state[_KEY] = Importing(services, uploaded)
        _let_go(uploaded)
        st.rerun()


def _let_go(uploaded: UploadedFile) -> None:
    """From here on the file is on disk only: Streamlit itself keeps it until the tab is closed."""
    context = get_script_run_ctx()
    if context is not None:
        context.uploaded_file_mgr.remove_file(context.session_id, uploaded.file_id)


def _draw_preview(importing: Importing) -> None:
    name = plain(importing.name)
    st.markdown(t("import.preview_of", name=name, size=file_size(importing.size_bytes)))
    if not has_ended(importing.preview, t("import.looking")):
        _draw_button("cancel", importing.forget)
        return
    if importing.preview.error is not None:
        st.error(plain_error(importing.preview.error))
    report = importing.preview.result
    if report is not None:
        _draw_report(report)
    with st.container(horizontal=True):
        if report is not None and report.counts["imported"]:
            label = t("import.take", count=report.counts["imported"])
            st.button(label, key="history_import_take", type="primary", on_click=importing.take)
        _draw_button("cancel", importing.forget)


def _draw_taken(importing: Importing, taken: Job[ImportReport]) -> None:
    if not has_ended(taken, t("import.taking")):
        st.button(t("chat.stop"), key="history_import_stop", on_click=taken.stop)
        return
    if taken.error is not None:
        st.error(plain_error(taken.error))
        st.caption(t("import.again"))
        st.button(t("import.try_again"), key="history_import_take", on_click=importing.take)
    if taken.result is not None:
        _draw_report(taken.result)
    _draw_button("done", importing.forget)


def _draw_button(name: str, on_click: Callable[[], None]) -> None:
    st.button(t(f"import.{name}"), key=f"history_import_{name}", on_click=on_click)


def _draw_report(report: ImportReport) -> None:
    """Counts in words, then each conversation that was not simply taken."""
    kind = "would" if report.dry_run else "was"
    counts = report.counts
    messages = t("history.count", count=report.messages)
    lines = [t(f"import.{kind}_take", count=counts["imported"], messages=messages)]
    lines += [
        t(f"import.{outcome}", count=counts[outcome])
        for outcome in ("known", "trash", "refused")
        if counts[outcome]
    ]
    forms = t("list.and").join(
        t("import.form", form=t(f"form.{name.replace('-', '_') or 'unknown'}"), count=count)
        for name, count in report.forms.most_common()
    )
    if forms:
        lines.insert(0, t("import.recognised", forms=forms))
    st.markdown("\n".join(f"- {line}" for line in lines))
    remarkable = [e for e in report.entries if e.outcome != "imported" or e.notes]
    if remarkable:
        _draw_entries(remarkable, report.left_off)


def _draw_entries(entries: Sequence[Entry], left_off: int) -> None:
    table = pd.DataFrame(
        {
            t("import.position"): entry.position,
            t("history.title_column"): entry.title or "–",
            t("import.outcome"): t(f"import.is_{entry.outcome}"),
            t("import.why"): _why(entry),
        }
        for entry in entries[:_TABLE_ROWS]
    )
    with st.container(key="history_import_entries"):
        st.dataframe(table, hide_index=True, height="content" if len(table) <= 8 else 320)
    more = len(entries) - len(table) + left_off
    if more > 0:
        st.caption(t("import.more", count=more))


def _why(entry: Entry) -> str:
    reasons = [error_text(entry.error)] if entry.error else []
    return t("list.reasons").join([*reasons, *(said(note) for note in entry.notes)])
