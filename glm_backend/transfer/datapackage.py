"""A zip with the CSV and a datapackage.json that says what its columns are.

Frictionless Data Package and Table Schema, version 1: https://specs.frictionlessdata.io.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from typing import Any, get_args

from glm_backend.store.values import Role, Status
from glm_backend.transfer.csv_export import write_csv
from glm_backend.transfer.records import CSV_COLUMNS
from glm_backend.transfer.source import Outlet, Source

_CSV = "messages.csv"
_COUNT = {"type": "integer", "constraints": {"minimum": 0}}
_PLACE = {"type": "integer", "constraints": {"required": True, "minimum": 1}}
_TYPES: dict[str, dict[str, Any]] = {
    "conversation_id": {"type": "string", "constraints": {"required": True}},
    "message_id": {"type": "string", "constraints": {"required": True, "unique": True}},
    "turn": _PLACE,
    "branch": _PLACE,
    "role": {"type": "string", "constraints": {"required": True, "enum": [*get_args(Role)]}},
    "status": {"type": "string", "constraints": {"required": True, "enum": [*get_args(Status)]}},
    "temperature": {"type": "number"},
    "top_p": {"type": "number"},
    "top_k": _COUNT,
    "repetition_penalty": {"type": "number"},
    "max_new_tokens": _COUNT,
    "seed": {"type": "integer"},
    "prompt_tokens": _COUNT,
    "completion_tokens": _COUNT,
    "ttft_ms": {"type": "number"},
    "duration_ms": {"type": "number"},
    "tokens_per_s": {"type": "number"},
    "rating": {"type": "integer"},
    "created_at": {
        "type": "datetime",
        "format": "%Y-%m-%dT%H:%M:%S.%fZ",
        "constraints": {"required": True},
    },
}


def write_datapackage(source: Source) -> Iterator[bytes]:
    """The zip, made while it is read: the CSV first, then what describes it."""
    out, digest, size = Outlet(), hashlib.sha256(), 0
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as package:
        with package.open(_CSV, "w", force_zip64=True) as table:
            for chunk in write_csv(source):
                table.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                yield out.take()
        described = _described(source.now(), size, digest.hexdigest())
        package.writestr("datapackage.json", json.dumps(described, indent=2))
    yield out.take()


def _described(created: str, size: int, digest: str) -> dict[str, Any]:
    fields = [{"name": name, "type": "string"} | _TYPES.get(name, {}) for name in CSV_COLUMNS]
    within = {"resource": "", "fields": "message_id"}
    return {
        "profile": "tabular-data-package",
        "name": "glm-chat-messages",
        "title": "Conversations of GLM Chat, one row a message",
        "created": created,
        "resources": [
            {
                "profile": "tabular-data-resource",
                "name": "messages",
                "path": _CSV,
                "format": "csv",
                "mediatype": "text/csv",
                "encoding": "utf-8",
                "bytes": size,
                "hash": f"sha256:{digest}",
                "dialect": {"delimiter": ",", "quoteChar": '"', "doubleQuote": True},
                "schema": {
                    "fields": fields,
                    "missingValues": [""],
                    "primaryKey": "message_id",
                    "foreignKeys": [{"fields": "parent_id", "reference": within}],
                },
            }
        ],
    }
