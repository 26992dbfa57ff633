"""A read-through cache: entries expire after seconds, and are invalidated by writes.

Each process has its entries in its own memory. A write invalidates entries by tags, in all
processes of a gunicorn master (:mod:`litellm_plugin.cache.stamps`). Where Redis is configured, it
is a second tier with entries, stamps and locks for several hosts
(:mod:`litellm_plugin.cache.redis`); while it is down, each process uses its own memory alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cachetools import TLRUCache

from litellm_plugin.cache.locks import FileLocks
from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.cache.stamps import SHARED, Entry, Seen, StampTable, TierUnavailableError
from litellm_plugin.clients import deadline
from litellm_plugin.errors import UpstreamError
from litellm_plugin.observability import metrics

if TYPE_CHECKING:
    from litellm_plugin.cache.redis import RedisTier  # needs redis, which may not be installed

log = logging.getLogger(__name__)

MAX_ROWS = 50_000
PATIENCE = 30.0  # seconds to wait for a lock, where no request's deadline is sooner

T = TypeVar("T")


class Cache:
    """Caches reads by key. Safe to share between threads.

    Args:
        seconds: TTL of an entry; 0: nothing is kept.
        stale_seconds: How long an expired entry may be used while the upstream is down.
        account_seconds: TTL of accounts; None: that of other entries.
        stamps: The stamps of tags, shared with other processes.
        tier: The second tier; None: there is none.
        max_rows: Limit for all entries together; the least recently used ones are dropped.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self,
        seconds: float,
        stale_seconds: float = 0.0,
        *,
        account_seconds: float | None = None,
        stamps: StampTable = SHARED,
        tier: RedisTier | None = None,
        max_rows: int = MAX_ROWS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.seconds = seconds
        self.account_seconds = seconds if account_seconds is None else account_seconds
        self._stale_seconds = stale_seconds
        self._stamps = stamps
        self._tier = tier
        self._clock = clock
        self._flights = SingleFlight()
        self._locks = FileLocks()
        self._lock = threading.Lock()  # never held during a call
        self._entries: TLRUCache[str, Entry] = TLRUCache(
            max_rows,
            ttu=lambda _name, entry, _now: entry.read_at + entry.seconds,
            timer=clock,
            getsizeof=lambda entry: entry.weight,
        )

    def read(
        self,
        key: tuple[str, ...],
        tags: tuple[str, ...],
        load: Callable[[], T],
        *,
        seconds: float | None = None,
        fresh: bool = False,
        weight: Callable[[T], int] = lambda _: 1,
        stale: Callable[[float], None] | None = None,
    ) -> T:
        """Return the cached value of ``key``, else that of ``load``; callers must not modify it.

        Concurrent reads of the same key share one call of ``load``.

        Args:
            key: What is read, and for which caller; the first part is the label in the metrics.
            tags: What the value depends on, by which :meth:`invalidate` invalidates it.
            load: Reads from the upstream.
            seconds: TTL of this entry; None: the cache's.
            fresh: Use no cached value, as before a write that depends on it.
            weight: Returns the value's size in rows.
            stale: Allows an expired entry to be used while the upstream is down, and is called
                with its age in seconds.
        """
        kind, name = key[0], "\x1f".join(key)
        lifetime = self.seconds and (self.seconds if seconds is None else seconds)
        entry, seen = self._look_up(name, tags, lifetime)
        if fresh or not lifetime:
            entry = None
        now = self._clock()
        if entry is not None and entry.is_new(now, lifetime):
            metrics.cache_read(kind, "hit")
            kept: T = entry.value
            return kept
        led = False

        def lead() -> T:
            nonlocal led
            led = True
            metrics.cache_read(kind, "miss")
            began = self._clock()
            loaded = load()
            if lifetime:
                kept_for = lifetime + self._stale_seconds
                self._keep(name, Entry(loaded, began, kept_for, max(weight(loaded), 1), *seen))
            return loaded

        try:
            # A read that begins after a write has other stamps, and joins no earlier read.
            value = self._flights.share((name, seen, fresh), lead)
        except UpstreamError as exc:
            if entry is None or stale is None or not exc.down:
                raise
            log.warning("answering from an earlier read: %s", exc)
            stale(now - entry.read_at)
            metrics.cache_read(kind, "stale")
            old: T = entry.value
            return old
        if not led:
            metrics.cache_read(kind, "shared")
        return value

    def stamps(self, *tags: str) -> Seen | None:
        """Return the stamps of tags, which each write changes; None while Redis is down."""
        here = self._stamps.of(tags)
        if self._tier is None:
            return here, None
        try:
            return here, self._tier.stamps(tags)
        except TierUnavailableError:
            return None

    @contextmanager
    def lock(self, name: str, *, on_all_hosts: bool = False) -> Iterator[bool]:
        """Hold a lock across the processes of this host; with Redis, across all hosts.

        Args:
            name: The lock's name.
            on_all_hosts: Whether to fail while Redis is down, instead of locking on this host only.

        Yields:
            Whether the lock is held; False where others hold it until the request's deadline, or
            for :data:`PATIENCE` seconds, and where ``on_all_hosts`` is set and Redis is down.
        """
        patience = min(PATIENCE, deadline.left())
        with self._locks.hold(name, patience) as here:
            if self._tier is None:
                yield here
                return
            with self._tier.lock(name, min(patience, deadline.left())) as everywhere:
                down = everywhere is None
                yield here and (not on_all_hosts if down else bool(everywhere))

    def invalidate(self, *tags: str) -> None:
        """Invalidate all entries that have any of these tags."""
        self._stamps.renew(tags)
        if self._tier is not None and tags:
            try:
                self._tier.invalidate(tags)
            except TierUnavailableError as exc:
                log.error("Other hosts may answer with data from before this write: %s", exc)

    @contextmanager
    def invalidating(self, *tags: str) -> Iterator[None]:
        """Invalidate ``tags`` after the block, which writes, even if it fails."""
        try:
            yield
        finally:
            # The upstream may have acted on a write that failed.
            self.invalidate(*tags)

    def _look_up(
        self, name: str, tags: tuple[str, ...], lifetime: float
    ) -> tuple[Entry | None, Seen]:
        """Return the valid entry, new or stale, and the present stamps of its tags."""
        here = self._stamps.of(tags)
        with self._lock:
            entry = self._entries.get(name)
        if entry is not None and entry.here != here:
            entry = None
        if self._tier is None:
            return entry, (here, None)
        try:
            sealed, shared = self._tier.look_up(name, tags, here)
        except TierUnavailableError as exc:
            log.debug("%s", exc)  # the circuit breaker has logged it
            return entry, (here, None)
        seen = here, shared
        if entry is not None and entry.shared != shared:
            entry = None
        if sealed and not (entry and entry.is_new(self._clock(), lifetime)):
            found = self._tier.open(name, sealed, seen)
            if found is not None and (entry is None or found.read_at > entry.read_at):
                self._remember(name, found)
                entry = found
        return entry, seen

    def _keep(self, name: str, entry: Entry) -> None:
        self._remember(name, entry)
        if self._tier is not None and entry.shared is not None:
            try:
                self._tier.put(name, entry)
            except TierUnavailableError as exc:
                log.debug("%s", exc)

    def _remember(self, name: str, entry: Entry) -> None:
        with self._lock:
            if entry.weight <= self._entries.maxsize:
                self._entries[name] = entry
