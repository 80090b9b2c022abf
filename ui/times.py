"""Times as the reader's clock shows them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

import streamlit as st


def reader_zone() -> tzinfo:
    """The browser's time zone."""
    name = st.context.timezone
    try:
        return ZoneInfo(name) if name else UTC
    except (KeyError, ValueError, OSError):  # a name that this machine does not know
        return UTC


def short_time(moment: datetime) -> str:
    """2026-03-01 14:05, which both languages read."""
    with suppress(OverflowError):  # the first and the last day of the calendar, which a zone leaves
        moment = moment.astimezone(reader_zone())
    return moment.strftime("%Y-%m-%d %H:%M")


def day_range(first: date, last: date) -> tuple[datetime, datetime]:
    """From the beginning of one day to the end of another, in the reader's zone."""
    zone = reader_zone()
    begin = datetime.combine(first, time.min, zone)
    return begin, datetime.combine(last + timedelta(days=1), time.min, zone)
