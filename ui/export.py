"""Conversations as files: the two everyday forms at hand, all of them in a dialog."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import streamlit as st

from glm_backend.api.downloads import Downloads, Offer
from glm_backend.services import Services
from glm_backend.store import ConversationFilter
from glm_backend.store.values import Reader
from glm_backend.transfer import EXPORT_FORMS, Selection, export
from ui.frame import saying_errors
from ui.labels import t
from ui.sizes import file_size

#: Of this process: links to exports that are streamed.
DOWNLOADS = Downloads()
#: A page holds what it hands out by itself in memory. From so many conversations on it does not.
STREAMED_FROM = 1000
#: So much of an export is made to tell how large all of it will be.
_SAMPLE_BYTES = 2_000_000


@dataclass(frozen=True, slots=True)
class Exported:
    """What is to be taken away, and by whom. sample: some of it, by which its size is judged."""

    reader: Reader
    selection: Selection
    count: int
    sample: Sequence[str]


def draw_download(
    services: Services,
    key: str,
    form: str,
    what: Exported,
    *,
    label: str = "",
    bom: bool = False,
) -> None:
    """A button that makes the file when it is clicked, or a link to where it is streamed."""
    label, icon, selection = label or t(f"export.{form}"), ":material/download:", what.selection
    if what.count >= STREAMED_FROM:
        address = DOWNLOADS.address(Offer(what.reader, form, selection, bom))
        st.link_button(label, address, key=key, icon=icon)
        return
    known = EXPORT_FORMS[form]
    st.download_button(
        label,
        data=lambda: b"".join(export(services.store, what.reader, form, selection, bom=bom)),
        file_name=known.file_name(selection),
        mime=known.media_type.partition(";")[0],
        key=key,
        on_click="ignore",
        icon=icon,
        disabled=what.count == 0,
    )


def open_export(services: Services, what: Exported) -> None:
    """The dialog with every form."""
    st.dialog(t("export.title"), icon=":material/download:")(_draw_dialog)(services, what)


def _draw_dialog(services: Services, what: Exported) -> None:
    with saying_errors():
        _draw_forms(services, what)


def _draw_forms(services: Services, what: Exported) -> None:
    st.caption(t("export.about", count=what.count))
    form = st.radio(
        t("export.form"),
        list(EXPORT_FORMS),
        format_func=lambda name: t(f"export.{name}"),
        captions=[t(f"export.{name}_for") for name in EXPORT_FORMS],
        key="export_form",
    )
    linear = EXPORT_FORMS[form].linear
    branch = st.segmented_control(
        t("export.branch"),
        ["all", "shown"],
        default="shown" if linear else "all",
        required=True,
        format_func=lambda name: t(f"export.branch_{name}"),
        key=f"export_branch_{linear}",
        help=t("export.branch_help"),
    )
    bom = form == "csv" and st.checkbox(
        t("history.bom"), value=True, key="export_bom", help=t("history.bom_help")
    )
    chosen = replace(what, selection=replace(what.selection, shown_only=branch == "shown"))
    expected, whole = expected_bytes(services, form, chosen)
    say = "export.size" if whole else "export.size_at_least"
    with st.container(horizontal=True, vertical_alignment="center"):
        draw_download(
            services,
            "export_download",
            form,
            chosen,
            label=t("export.download"),
            bom=bom,
        )
        st.caption(t(say, size=file_size(expected)), width="content")


def expected_bytes(services: Services, form: str, what: Exported) -> tuple[int, bool]:
    """How large the file will be, judged by a sample; and whether all of the sample was made."""
    if not what.sample:
        return 0, True
    chosen = what.selection
    among = ConversationFilter(trash=chosen.filter.trash)
    some = Selection(what.sample, among, chosen.shown_only)
    made = 0
    with closing(export(services.store, what.reader, form, some)) as chunks:
        for chunk in chunks:
            made += len(chunk)
            if made > _SAMPLE_BYTES:
                break
    whole = made <= _SAMPLE_BYTES
    return made * what.count // len(what.sample), whole
