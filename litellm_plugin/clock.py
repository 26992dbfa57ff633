"""Times as they are written into LiteLLM's metadata."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

Clock = Callable[[], datetime]


def stamp(now: Clock) -> str:
    """Return the present time in ISO 8601, UTC with milliseconds, ``…T12:00:00.000Z``."""
    return now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
