"""The cache: reads are kept for seconds, shared while under way, and never outlive a write.

Each process keeps entries in its own memory. A write invalidates them by tags, in all processes
of a master at once (:mod:`litellm_plugin.cache.stamps`). Where Redis is configured, entries,
stamps and locks are in Redis as well (:mod:`litellm_plugin.cache.redis`); while Redis is away,
each process goes on by its own memory.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from cachetools import TLRUCache

from litellm_plugin.cache.locks import FileLocks
from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.cache.stamps import SHARED, StampTable
from litellm_plugin.cache.tier import Entry, SecondTier, Seen, TierUnavailableError
from litellm_plugin.clients import deadline
from litellm_plugin.errors import UpstreamError
from litellm_plugin.observability import metrics

log = logging.getLogger(__name__)

MAX_ROWS = 50_000
PATIENCE = 30.0  # seconds to wait for a lock, where no request's deadline is sooner

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """An entry that a read keeps beside its own.

    Attributes:
        value: The entry's value; None where there is no valid one.
        keep: Called with a value and its size in rows, keeps it as of when the place was made.
    """

    value: Any
    keep: Callable[[Any, int], None]


class Cache:
    """Caches reads, by who reads and what. Safe to share between threads.

    Args:
        seconds: How long an entry is new; 0: nothing is kept.
        stale_seconds: How long beyond that it may stand in for an upstream that is down.
        account_seconds: How long an account is new; None: as everything.
        stamps: How writes invalidate entries in other processes.
        tier: What several hosts share; None: nothing.
        max_rows: How many rows are kept at most, over all entries; the ones that were not
            asked for longest go first.
        clock: Unix time, in seconds.

    Attributes:
        seconds: As above.
        account_seconds: How long an account is new.
    """

    def __init__(
        self,
        seconds: float,
        stale_seconds: float = 0.0,
        *,
        account_seconds: float | None = None,
        stamps: StampTable = SHARED,
        tier: SecondTier | None = None,
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
        self._lock = threading.Lock()  # for a few instructions, never for a call
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
        """Return what ``load`` returns, or returned a moment ago; it must not be changed.

        Args:
            key: Who reads and what; nobody else's read is ever returned.
            tags: The tags: what it depends on, and what :meth:`invalidate` invalidates it by.
            load: The read.
            seconds: How long its entry is new, if not as long as everything.
            fresh: Ask in any case, as before a write that depends on it.
            weight: Its size in rows.
            stale: Called with the age, in seconds, of an entry that stands in for an
                upstream that is down; without it none does.
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

        def ask() -> T:
            nonlocal led
            led = True
            metrics.cache_read(kind, "miss")
            began = self._clock()
            loaded = load()
            if lifetime:
                self._keep(name, loaded, began, lifetime, weight(loaded), seen)
            return loaded

        try:
            # Whoever has seen a later write has other stamps, and joins no earlier read.
            value = self._flights.share((name, seen, fresh), ask)
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

    def place(self, key: tuple[str, ...], tags: tuple[str, ...], *, seconds: float) -> Place:
        """Return an entry by itself, or where to keep one; to be called before the read.

        Args:
            key: As for :meth:`read`.
            tags: As for :meth:`read`.
            seconds: How long the entry is new.
        """
        name = "\x1f".join(key)
        entry, seen = self._look_up(name, tags, seconds)
        now = self._clock()

        def keep(value: Any, weight: int) -> None:
            if self.seconds:
                self._keep(name, value, now, seconds, weight, seen)

        valid = entry is not None and bool(self.seconds) and entry.is_new(now, seconds)
        return Place(entry.value if entry is not None and valid else None, keep)

    def stamps(self, *tags: str) -> Seen | None:
        """Return the stamps of some tags, which change with each write; None: Redis is away."""
        here = self._stamps.of(tags)
        if self._tier is None:
            return here, None
        try:
            return here, self._tier.stamps(tags)
        except TierUnavailableError:
            return None

    @contextmanager
    def lock(self, name: str, *, on_all_hosts: bool = False) -> Iterator[bool]:
        """Hold a lock that no other process of this host holds; with Redis, of any host.

        Args:
            name: What for.
            on_all_hosts: Whether this host's lock does not suffice while Redis is away.

        Yields:
            Whether it is held; not, where it can't be had within the request's deadline.
        """
        patience = min(PATIENCE, deadline.left())
        with self._locks.hold(name, patience) as here:
            if self._tier is None:
                yield here
                return
            with self._tier.lock(name, min(patience, deadline.left())) as everywhere:
                away = everywhere is None and not on_all_hosts
                yield here and (away or bool(everywhere))

    def invalidate(self, *tags: str) -> None:
        """Invalidate all that depends on any of these tags and was read before now."""
        self._stamps.renew(tags)
        if self._tier is not None and tags:
            try:
                self._tier.invalidate(tags)
            except TierUnavailableError as exc:
                log.error("other hosts may answer from before this write: %s", exc)

    @contextmanager
    def invalidating(self, *tags: str) -> Iterator[None]:
        """Forget ``tags`` when the write is over, however it ended."""
        try:
            yield
        finally:
            # Also after a failure: the upstream may have acted all the same.
            self.invalidate(*tags)

    def _look_up(
        self, name: str, tags: tuple[str, ...], lifetime: float
    ) -> tuple[Entry | None, Seen]:
        """Return a valid entry, new or stale, and the stamps that a read from now on has seen."""
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
            log.debug("%s", exc)  # the tier has told it once
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

    def _keep(
        self, name: str, value: Any, began: float, lifetime: float, weight: int, seen: Seen
    ) -> None:
        entry = Entry(value, began, lifetime + self._stale_seconds, max(weight, 1), *seen)
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
