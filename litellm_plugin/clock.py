"""The clock of the service, and times as text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

Clock = Callable[[], datetime]  # returns the present time, in UTC


def stamp(now: Clock) -> str:
    """Return the present time as :func:`iso` does."""
    return iso(now())


def iso(time: datetime) -> str:
    """Return a time with a zone as UTC text such as ``2026-11-27T12:00:00.000Z``.

    Raises:
        OverflowError: In UTC, the time is outside of the years 1 to 9999.
    """
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_day(text: str) -> bool:
    """Tell whether a text is a date, ``YYYY-MM-DD``."""
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def moment(text: Any) -> datetime | None:
    """Return LiteLLM's ``text`` as a time with a zone; None where it is no time."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
