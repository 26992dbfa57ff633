"""The clock of the service, and times as text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]  # returns the present time, in UTC


def stamp(now: Clock) -> str:
    """Return the present time as in LiteLLM's metadata, ``2026-11-27T12:00:00.000Z``."""
    return now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
