"""Reads that are remembered for a few seconds, and shared while they are under way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from litellm_plugin.cache.flights import Flights
from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.store import Entry, Generations, Store, StoreUnavailableError
from litellm_plugin.errors import UpstreamError
from litellm_plugin.telemetry import metrics

log = logging.getLogger(__name__)

PAUSE = 0.05  # seconds; a browser needs less to ask for what an answer leads to

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a read may keep something by the way.

    Attributes:
        value: What is kept there; None where nothing is, or what no longer counts.
        keep: Called with a value and its size in rows, keeps it as of when the place was looked at.
    """

    value: Any
    keep: Callable[[Any, int], None]


class Snapshots:
    """Remembers reads, keyed by who reads and what.

    Args:
        store: Where.
        seconds: How long a read may be repeated without asking again; 0: never.
        stale_seconds: How long beyond that it may stand in for an upstream that is down.
        clock: Unix time, in seconds.
        host: Tells which requests of somebody come in a row; None: nobody asks.
    """

    def __init__(
        self,
        store: Store,
        seconds: float,
        stale_seconds: float = 0.0,
        clock: Callable[[], float] = time.time,
        host: HostShared | None = None,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._stale_seconds = stale_seconds
        self._host = host
        self._clock = clock
        self._flights = Flights()

    def read(
        self,
        key: tuple[str, ...],
        scopes: tuple[str, ...],
        load: Callable[[], T],
        *,
        seconds: float | None = None,
        fresh: bool = False,
        since: float = 0.0,
        weight: Callable[[T], int] = lambda _: 1,
        stale: Callable[[float], None] | None = None,
    ) -> T:
        """Return what ``load`` returns, or returned a moment ago.

        Args:
            key: Who reads and what; nobody else's read is ever returned.
            scopes: What it depends on; :meth:`forget` any of them and it is read again.
            load: The read.
            seconds: How long to remember it, if not as long as everything.
            fresh: Ask in any case, as whoever decides about a write should.
            since: Unix time, in seconds; no read that began before will do.
            weight: Its size in rows.
            stale: Called with the age, in seconds, of a snapshot that stands in for an
                upstream that is down; without it none does.
        """
        name = "\x1f".join(key)
        ask = _counted(key[0], load)
        lifetime = self._seconds and (self._seconds if seconds is None else seconds)
        try:
            oldest = max(self._clock() - lifetime, since)
            entry, generations = self._store.look_up(name, scopes, since=oldest)
        except StoreUnavailableError as exc:
            log.debug("snapshots can't be asked for: %s", exc)  # the store says it once
            return self._share(key[0], (name, exc.known), ask)
        if entry is not None and (fresh or not self._seconds or entry.generations != generations):
            entry = None
        now = self._clock()
        if entry is not None and _is_new(entry, now, lifetime, since):
            metrics.cache_read(key[0], "hit")
            value: T = entry.value
            return value

        def load_and_keep(known: Generations) -> T:
            began = self._clock()
            loaded = ask()
            if lifetime:
                self._keep(name, Entry(loaded, known, began), lifetime, weight(loaded))
            return loaded

        def load_it() -> T:
            if fresh or not lifetime:
                return load_and_keep(generations)
            return self._in_turn(name, scopes, generations, lifetime, since, load_and_keep)

        try:
            # Whoever has seen a later write has later generations, and joins no earlier read;
            # who asks in any case joins nobody who may be answered from the store.
            return self._share(key[0], (name, generations, fresh), load_it)
        except UpstreamError as exc:
            if entry is None or stale is None or not exc.down:
                raise
            log.warning("a snapshot stands in: %s", exc)
            stale(now - entry.read_at)
            metrics.cache_read(key[0], "stale")
            stood_in: T = entry.value
            return stood_in

    @property
    def seconds(self) -> float:
        """How long a read may be repeated without asking again; 0: never."""
        return self._seconds

    def place(self, key: tuple[str, ...], scopes: tuple[str, ...], *, seconds: float) -> Place:
        """Return what is kept by the way, or where to keep it; to be asked before the read.

        It waits for nobody, so it may be called inside of a read.

        Args:
            key: As for :meth:`read`.
            scopes: As for :meth:`read`.
            seconds: How long it is kept.
        """
        name = "\x1f".join(key)
        nowhere = Place(None, lambda _value, _weight: None)
        if not self._seconds:
            return nowhere
        try:
            since = self._clock() - seconds
            entry, generations = self._store.look_up(name, scopes, since=since)
        except StoreUnavailableError as exc:
            log.debug("snapshots can't be asked for: %s", exc)  # the store says it once
            return nowhere
        now = self._clock()

        def keep(value: Any, weight: int) -> None:
            self._keep(name, Entry(value, generations, now), seconds, weight)

        if entry is None or entry.generations != generations:
            return Place(None, keep)
        return Place(entry.value if _is_new(entry, now, seconds) else None, keep)

    def begin(self, reader: str) -> float:
        """Note that a request begins; return when the first of its row did, Unix time.

        Requests are in a row as those of one page are: one is under way, or has ended a
        moment ago. What was read for an earlier row may be too old for this one.
        """
        return self._host.begin(reader, self._clock(), PAUSE) if self._host else 0.0

    def end(self, reader: str) -> None:
        """Note that it ends."""
        if self._host:
            self._host.end(reader, self._clock())

    def generations(self, *scopes: str) -> Generations | None:
        """Return a value that changes when any of ``scopes`` is forgotten; None: who knows."""
        try:
            return self._store.generations(scopes)
        except StoreUnavailableError:
            return None

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Hold a lock that no other worker holds; gives whether it could be had in time."""
        with self._store.alone(name) as hold:
            yield hold.held

    def forget(self, *scopes: str) -> None:
        """Let nothing that was read before now be returned any more."""
        try:
            self._store.bump(scopes)
        except StoreUnavailableError as exc:
            log.error("other replicas may answer from before this write: %s", exc)

    @contextmanager
    def writing(self, *scopes: str) -> Iterator[None]:
        """Forget ``scopes`` when the write is over, however it ended."""
        try:
            yield
        finally:
            # Also after a failure: the upstream may have acted all the same.
            self.forget(*scopes)

    def _share(self, kind: str, key: Hashable, load: Callable[[], T]) -> T:
        """Return what ``load`` returns, or what the same read that is under way does."""
        mine = False

        def load_it() -> T:
            nonlocal mine
            mine = True
            return load()

        shared = self._flights.share(key, load_it)
        if not mine:
            metrics.cache_read(kind, "shared")
        return shared

    def _in_turn(
        self,
        name: str,
        scopes: tuple[str, ...],
        known: Generations,
        lifetime: float,
        since: float,
        load: Callable[[Generations], T],
    ) -> T:
        """Return what another worker has read while this one waited, or else read it."""
        with self._store.reading(name, known) as turn:
            if turn.look_again:
                entry, known = self._by_now(name, scopes, known, lifetime, since)
                if entry is not None:
                    metrics.cache_read(name.partition("\x1f")[0], "shared")
                    value: T = entry.value
                    return value
            if not turn.waited:
                return load(known)
        # In vain. From here on all who waited ask at once: in a row they would wait too long.
        return load(known)

    def _by_now(
        self,
        name: str,
        scopes: tuple[str, ...],
        known: Generations,
        lifetime: float,
        since: float,
    ) -> tuple[Entry | None, Generations]:
        """Return what the store has, if it counts and is not too old; and the generations."""
        try:
            oldest = max(self._clock() - lifetime, since)
            entry, present = self._store.look_up(name, scopes, since=oldest)
        except StoreUnavailableError as exc:
            log.debug("snapshots can't be asked for: %s", exc)
            return None, known
        if entry is None or entry.generations != present:
            return None, present
        return (entry if _is_new(entry, self._clock(), lifetime, since) else None), present

    def _keep(self, name: str, entry: Entry, lifetime: float, weight: int) -> None:
        try:
            seconds = lifetime + self._stale_seconds
            self._store.put(name, entry, seconds=seconds, weight=max(weight, 1))
        except StoreUnavailableError as exc:
            log.debug("a snapshot can't be kept: %s", exc)


def _counted(kind: str, load: Callable[[], T]) -> Callable[[], T]:
    def ask() -> T:
        metrics.cache_read(kind, "miss")
        return load()

    return ask


def _is_new(entry: Entry, now: float, lifetime: float, since: float = 0.0) -> bool:
    """Tell whether an entry was read within a lifetime of now, and not before ``since``."""
    return 0 <= now - entry.read_at < lifetime and entry.read_at >= since
