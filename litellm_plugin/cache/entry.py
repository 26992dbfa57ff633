"""What a cache keeps of a read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litellm_plugin.cache.stamps import Stamps


@dataclass(frozen=True, slots=True)
class Entry:
    """A cache entry.

    Attributes:
        value: What was read; JSON-like.
        read_at: Unix time, in seconds, at which the read began.
        seconds: How long the entry is kept from then on.
        weight: Its size in rows.
        here: Stamps of its tags in this host's memory, from before the read.
        shared: Those in Redis; None: Redis was not asked or did not answer.
    """

    value: Any
    read_at: float
    seconds: float
    weight: int
    here: Stamps
    shared: Stamps | None

    def is_new(self, now: float, seconds: float) -> bool:
        """Tell whether it was read within ``seconds`` before ``now``, Unix time."""
        return 0 <= now - self.read_at < seconds
