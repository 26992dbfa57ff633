"""A cache entry, as it is kept in memory and in the second tier."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from litellm_plugin.cache.stamps import Stamps

# Stamps of an entry's tags from before its read: in this host's memory, and in the second tier;
# None: there is none, or it did not answer.
Seen = tuple[Stamps, Stamps | None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A cache entry.

    Attributes:
        value: What was read; JSON-like.
        read_at: Unix time, in seconds, at which the read began.
        seconds: How long the entry is kept from then on.
        weight: Its size in rows.
        here: Stamps of its tags in this host's memory.
        shared: Those in the second tier.
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


def digest(text: str) -> str:
    """Return 32 hexadecimal digits that stand for ``text`` in the names of a store."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class TierUnavailableError(Exception):
    """The second tier does not answer; the cache goes on without it."""
