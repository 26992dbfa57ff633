"""Stamps: how a write invalidates what any worker of the same master has in memory.

Each tag has a slot in memory that a process shares with the children it forks. A write puts a
new random number into the slot of each tag that it touches. A cache entry has the stamps that
were there before its read began, and is valid while they are. Nothing is locked: a slot is eight
aligned bytes, which the processor stores and loads as one. Two tags that meet in a slot cost a
read more, never a stale one.
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
        id: A random one, which those processes inherit.
    """

    def __init__(self) -> None:
        self._slots = memoryview(mmap.mmap(-1, SLOTS * _BYTES)).cast("Q")
        self.id = secrets.token_hex(8)

    def of(self, tags: tuple[str, ...]) -> Stamps:
        """Return the present stamp of each tag."""
        # A forked process has the hash function of its parent.
        return tuple([self._slots[hash(tag) % SLOTS] for tag in tags])

    def renew(self, tags: tuple[str, ...]) -> None:
        """Give each tag a new stamp: what was read before is invalid."""
        for tag in tags:
            self._slots[hash(tag) % SLOTS] = secrets.randbits(64)


# Of the process that imports this first: gunicorn's master, by way of gunicorn_conf.py.
SHARED = StampTable()
