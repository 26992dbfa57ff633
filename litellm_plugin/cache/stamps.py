"""Stamps: how a write invalidates entries in the memory of all workers of a gunicorn master.

Each tag has a slot in memory that a process shares with its forked children. A write stores a new
random number, the stamp, in the slot of each tag that it touches. A cache entry has the stamps
from before its read, and is valid while they are in the slots. There are no locks: a slot is eight
aligned bytes, which the processor stores and loads at once. Two tags with the same slot invalidate
each other's entries, which costs a read.
"""

from __future__ import annotations

import mmap
import secrets

SLOTS = 1 << 16
_BYTES = 8

Stamps = tuple[int, ...]


class StampTable:
    """The stamps of all tags, shared with processes that are forked later.

    Attributes:
        id: Random; those processes inherit it.
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


# Of the process that imports this first: gunicorn's master, by way of gunicorn_conf.py.
SHARED = StampTable()
