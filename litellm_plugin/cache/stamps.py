"""Entries, and the stamps by which a write invalidates them in all workers of a gunicorn master.

Each tag has a slot in memory that a process shares with its forked children. A write stores a new
random number, the stamp, in the slot of each tag that it touches. A cache entry has the stamps
from before its read, and is valid while they are in the slots. There are no locks: a slot is eight
aligned bytes, which the processor stores and loads at once. Two tags with the same slot invalidate
each other's entries, which costs a read.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
from dataclasses import dataclass
from typing import Any

SLOTS = 1 << 16
_BYTES = 8

Stamps = tuple[int, ...]
# Stamps of an entry's tags from before its read: in this host's memory, and in the second tier;
# None: there is no second tier, or it did not answer.
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


class StampTable:
    """The stamps of all tags, shared with processes that are forked later.

    Attributes:
        id: Random; forked processes inherit it.
    """

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, SLOTS * _BYTES)).cast("Q")
        self.id = secrets.token_hex(8)

    def of(self, tags: tuple[str, ...]) -> Stamps:
        """Return the present stamp of each tag."""
        # Forked processes have the hash seed of their parent.
        return tuple([self._slots[hash(tag) % SLOTS] for tag in tags])

    def renew(self, tags: tuple[str, ...]) -> None:
        """Give each tag a new stamp, which invalidates its entries."""
        for tag in tags:
            self._slots[hash(tag) % SLOTS] = secrets.randbits(64)


# Made where this module is first imported: in gunicorn's master, through gunicorn_conf.py.
SHARED = StampTable()
