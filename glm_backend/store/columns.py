"""Column types that mean the same on every database.

Times and JSON are kept as text: it sorts and streams as it is, and an export needs no conversion.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import Dialect, String, Text
from sqlalchemy.types import TypeDecorator

from glm_backend.errors import InvalidParameter, Phrase


class PlainText(TypeDecorator[str]):
    """Text of any length. NUL is refused: SQLite would keep it and PostgreSQL cannot."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is not None and "\0" in value:
            allowed = Phrase("text without NUL")
            raise InvalidParameter(name=Phrase("text"), value=r"'\x00'", allowed=allowed)
        return value


class Timestamp(TypeDecorator[datetime]):
    """An aware datetime, kept as fixed-width UTC text: 2026-11-24T01:50:00.123456Z."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        return None if value is None else timestamp_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


class Json(TypeDecorator[object]):
    """Any JSON value as readable text; None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: Dialect) -> str | None:
        return None if value is None else json.dumps(value, ensure_ascii=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> object:
        return None if value is None else json.loads(value)


def timestamp_text(time: datetime) -> str:
    """`time` as the store and the exports write it; raises InvalidParameter without a zone."""
    if time.tzinfo is None:
        allowed = Phrase("a time with a zone")
        raise InvalidParameter(name=Phrase("time"), value=time.isoformat(), allowed=allowed)
    return f"{time.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"  # instead of +00:00
