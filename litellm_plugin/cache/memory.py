"""Snapshots in the memory of one worker process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from cachetools import TLRUCache

from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.store import Entry, Generations

MAX_ROWS = 50_000


class MemoryStore:
    """Entries in this process, generations shared with the others of this host.

    Args:
        host: The generations.
        max_rows: How many rows are kept at most, over all entries; the ones
            that were not asked for longest go first.
        timer: Tells the time in seconds; must never go back.
    """

    def __init__(
        self,
        host: HostShared,
        max_rows: int = MAX_ROWS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._lock = threading.Lock()
        # A value is (entry, seconds, weight).
        self._entries: TLRUCache[str, tuple[Entry, float, int]] = TLRUCache(
            max_rows,
            ttu=lambda _key, kept, now: now + kept[1],
            timer=timer,
            getsizeof=lambda kept: kept[2],
        )

    @property
    def host_id(self) -> str:
        """What tells the generations of this host from those of another one."""
        return self._host.id

    def look_up(self, key: str, scopes: tuple[str, ...]) -> tuple[Entry | None, Generations]:
        """Return the entry of ``key``, and the present generations of ``scopes``."""
        generations = self._host.generations(scopes)
        with self._lock:
            kept = self._entries.get(key)
        return (kept[0] if kept else None), generations

    def put(self, key: str, entry: Entry, *, seconds: float, weight: int) -> None:
        """Keep ``entry`` for ``seconds``, unless it is larger than all there is."""
        with self._lock:
            if weight <= self._entries.maxsize:
                self._entries[key] = (entry, seconds, weight)

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generations of ``scopes``."""
        return self._host.generations(scopes)

    def alone(self, name: str) -> AbstractContextManager[object]:
        """Hold a lock that no other worker of this host holds."""
        return self._host.alone(name)

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope, for all workers of this host."""
        self._host.bump(scopes)
