"""Snapshots in the memory of one worker process."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from cachetools import TLRUCache

from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.store import Entry, Generations, Hold, Turn

MAX_ROWS = 50_000

_AT_ONCE = nullcontext(Turn(look_again=False, waited=False))


class MemoryStore:
    """Entries in this process, generations shared with the others of this host.

    Args:
        host: The generations, and the locks.
        max_rows: How many rows are kept at most, over all entries; the ones
            that were not asked for longest go first.
        timer: Tells the time in seconds; must never go back.

    Attributes:
        host: As above.
    """

    def __init__(
        self,
        host: HostShared,
        max_rows: int = MAX_ROWS,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self._lock = threading.Lock()
        # A value is (entry, seconds, weight).
        self._entries: TLRUCache[str, tuple[Entry, float, int]] = TLRUCache(
            max_rows,
            ttu=lambda _key, kept, now: now + kept[1],
            timer=timer,
            getsizeof=lambda kept: kept[2],
        )

    def look_up(
        self,
        key: str,
        scopes: tuple[str, ...],
        *,
        since: float = math.inf,  # noqa: ARG002 - there is only one to choose
    ) -> tuple[Entry | None, Generations]:
        """Return the entry of ``key``, and the present generations of ``scopes``."""
        generations = self.host.generations(scopes)
        with self._lock:
            kept = self._entries.get(key)
        return (kept[0] if kept else None), generations

    def put(self, key: str, entry: Entry, *, seconds: float, weight: int) -> None:
        """Keep ``entry`` for ``seconds``, unless it is larger than all there is."""
        with self._lock:
            if weight <= self._entries.maxsize:
                self._entries[key] = (entry, seconds, weight)

    def reading(
        self,
        key: str,  # noqa: ARG002 - what another process reads can't be had here
        generations: Generations,  # noqa: ARG002
    ) -> AbstractContextManager[Turn]:
        """Let nobody wait."""
        return _AT_ONCE

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generations of ``scopes``."""
        return self.host.generations(scopes)

    def alone(self, name: str) -> AbstractContextManager[Hold]:
        """Hold a lock that no other worker of this host holds."""
        return self.host.alone(name)

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope, for all workers of this host."""
        self.host.bump(scopes)
