"""Conversations on their way out, in the wire form that docs/export-formats.md describes."""

from glm_backend.transfer.csv_export import export_csv
from glm_backend.transfer.json_export import export_json

__all__ = ["export_csv", "export_json"]
