"""What the cache keeps of a read, and what a second tier does for several hosts."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

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


class TierUnavailableError(Exception):
    """The second tier does not answer; the cache goes on without it."""


class SecondTier(Protocol):
    """Entries, stamps and locks that several hosts share.

    Every method but ``open`` and ``lock`` may raise :class:`TierUnavailableError`.
    """

    def look_up(
        self, name: str, tags: tuple[str, ...], here: Stamps
    ) -> tuple[bytes | None, Stamps]:
        """Return the sealed entry of ``name``, and the present stamps of ``tags``.

        Args:
            name: What the entry was put under.
            tags: What it depends on.
            here: The tags' present stamps in this host's memory.
        """
        ...

    def open(self, name: str, sealed: bytes, seen: Seen) -> Entry | None:
        """Return the entry that was sealed; None where it is not valid for these stamps."""
        ...

    def put(self, name: str, entry: Entry) -> None:
        """Keep an entry, if it may leave this process."""
        ...

    def stamps(self, tags: tuple[str, ...]) -> Stamps:
        """Return the present stamps of ``tags``."""
        ...

    def invalidate(self, tags: tuple[str, ...]) -> None:
        """Give each tag a new stamp, after it got one in this host's memory."""
        ...

    def lock(self, name: str, patience: float) -> AbstractContextManager[bool | None]:
        """Hold a lock that no other host holds; yields whether it is held, None: can't be asked.

        Args:
            name: What for.
            patience: How long to wait for it, in seconds.
        """
        ...
