"""Conversations on their way out and in, in the wire forms that docs/exports.md describes."""

from glm_backend.transfer.candidates import IMPORT_FORMS
from glm_backend.transfer.exports import EXPORT_FORMS, ExportForm, export, export_file
from glm_backend.transfer.import_report import Entry, ImportReport
from glm_backend.transfer.imports import import_file
from glm_backend.transfer.selection import SELECTION_WORDS, Selection

__all__ = [
    "EXPORT_FORMS",
    "IMPORT_FORMS",
    "SELECTION_WORDS",
    "Entry",
    "ExportForm",
    "ImportReport",
    "Selection",
    "export",
    "export_file",
    "import_file",
]
