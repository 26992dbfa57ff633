"""Counts per name within windows of time: in memory that a host shares, or in Redis.

The library ``limits`` counts; it has a storage for Redis. That of its own for memory is of one
process, keeps a name for every stranger who comes along, and looks through all of them again
and again: here a table of a fixed size takes its place, which all workers of a host map.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cachetools import TLRUCache
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage, Storage
from limits.strategies import FixedWindowRateLimiter

from litellm_plugin.cache.host import between_threads, opened, private_folder
from litellm_plugin.cache.line import Line
from litellm_plugin.config.settings import Rate

log = logging.getLogger(__name__)

# What a name is told by, when its window ends (Unix time), and how often it was counted.
_ROW = struct.Struct("=QdQ")
WAYS = 8  # rows that a name may be in; whoever needs one takes that which counts least
SETS = 1 << 13
_SET = WAYS * _ROW.size
MAX_OVER = 4096  # names that a worker knows to have to wait


class HostTable(Storage):
    """A storage of ``limits`` in memory that the processes of a host share.

    It never grows. With more names in one window than it has rows, 65536, those that were
    counted least are forgotten: who asks most is known longest.

    Args:
        path: The file, made with mode 0600 where there is none; None shares with forked
            children only.
        clock: Tells the Unix time in seconds.
        sets: How many rows there are, in sets of ``WAYS``; as all have it who share the file.
    """

    STORAGE_SCHEME = None

    def __init__(
        self, path: Path | None, clock: Callable[[], float] = time.time, sets: int = SETS
    ) -> None:
        super().__init__()
        self._clock = clock
        self._sets = sets
        self._descriptor = opened(path)
        os.ftruncate(self._descriptor, sets * _SET)
        self._map = mmap.mmap(self._descriptor, sets * _SET)
        self._threads = between_threads(self._descriptor)

    @classmethod
    def of_user(cls, name: str) -> HostTable:
        """Return the table that all processes of this user share under ``name``."""
        try:
            file = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.counts"
            return cls(private_folder() / file)
        except OSError as exc:
            log.warning("rate limits are shared with forked workers only: %s", exc)
            return cls(None)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What can go wrong in it."""
        return OSError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count ``key`` and return how often it was in this window, which lasts ``expiry`` s."""
        tag, at = self._place(key)
        now = self._clock()
        with self._alone(at):
            rows = self._rows(at)
            found = next((n for n, row in enumerate(rows) if row[0] == tag and now < row[1]), None)
            if found is None:
                found = min(range(WAYS), key=lambda n: rows[n][2] if now < rows[n][1] else -1)
                _, until, count = tag, now + expiry, amount
            else:
                _, until, count = rows[found]
                count += amount
            _ROW.pack_into(self._map, at + found * _ROW.size, tag, until, count)
        return count

    def get(self, key: str) -> int:
        """Return how often ``key`` was counted in the present window."""
        return self._row(key)[1]

    def get_expiry(self, key: str) -> float:
        """Return when the present window of ``key`` ends, in Unix time."""
        return self._row(key)[0]

    def check(self) -> bool:
        """Tell that it works."""
        return True

    def reset(self) -> int | None:
        """Forget everything."""
        self._map[:] = bytes(len(self._map))
        return None

    def clear(self, key: str) -> None:
        """Forget ``key``."""
        tag, at = self._place(key)
        with self._alone(at):
            for number, row in enumerate(self._rows(at)):
                if row[0] == tag:
                    _ROW.pack_into(self._map, at + number * _ROW.size, 0, 0.0, 0)

    def _row(self, key: str) -> tuple[float, int]:
        tag, at = self._place(key)
        now = self._clock()
        for other, until, count in self._rows(at):
            if other == tag and now < until:
                return until, count
        return now, 0

    def _place(self, key: str) -> tuple[int, int]:
        """Return what a name is told by, and where its rows begin."""
        digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        number = int.from_bytes(digest[8:], "big") % self._sets
        return int.from_bytes(digest[:8], "big"), number * _SET

    def _rows(self, at: int) -> list[tuple[int, float, int]]:
        return list(_ROW.iter_unpack(self._map[at : at + _SET]))

    @contextmanager
    def _alone(self, at: int) -> Iterator[None]:
        with self._threads.counting:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, at)
            try:
                yield
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, at)


class Counters:
    """Tells who asks too often. Never raises, and never waits for long.

    Args:
        here: Where to count on this host.
        shared: Where all hosts count, if anywhere; while it fails, ``here`` counts instead.
        clock: Tells the Unix time in seconds.
    """

    def __init__(
        self, here: Storage, shared: Storage | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._here = FixedWindowRateLimiter(here)
        self._shared = FixedWindowRateLimiter(shared) if shared is not None else None
        self._line = Line("rate limits are counted on each host for itself")
        self._clock = clock
        self._lock = threading.Lock()
        # Until when somebody has to wait: they are not counted again until then, and who only
        # wants to know need not ask the store.
        self._over: TLRUCache[tuple[str, str], float] = TLRUCache(
            MAX_OVER, ttu=lambda _name, until, _now: until, timer=clock
        )

    def over(self, kind: str, name: str) -> float | None:
        """Return how long somebody has to wait, in seconds, as far as this worker knows.

        Args:
            kind: What for.
            name: Who.
        """
        with self._lock:
            until = self._over.get((kind, name))
        return None if until is None else max(until - self._clock(), 0.0)

    def hit(self, rate: Rate, kind: str, name: str) -> float | None:
        """Count somebody.

        Args:
            rate: How often they may.
            kind: What for.
            name: Who.

        Returns:
            None, or the seconds to wait where it was once too often.
        """
        wait = self.over(kind, name)
        if wait is None:
            wait = self._hit(RateLimitItemPerSecond(rate.amount, rate.seconds), kind, _digest(name))
            if wait is not None:
                with self._lock:
                    self._over[kind, name] = self._clock() + wait
        return wait

    def _hit(self, item: RateLimitItem, *names: str) -> float | None:
        if self._shared is not None and self._line.open():
            try:
                wait = self._asked(self._shared, item, names)
            except (StorageError, OSError, ValueError) as exc:
                self._line.broke(exc)
            else:
                self._line.held()
                return wait
        return self._asked(self._here, item, names)

    def _asked(
        self, limiter: FixedWindowRateLimiter, item: RateLimitItem, names: Sequence[str]
    ) -> float | None:
        if limiter.hit(item, *names):
            return None
        return max(limiter.get_window_stats(item, *names).reset_time - self._clock(), 0.0)


def in_redis(pool: object, url: str, litellm: str) -> Storage:
    """Return a storage in Redis or Valkey, which may be down.

    Args:
        pool: Its connections, with time-outs.
        url: Its address.
        litellm: The proxy's address; those who use it count together.
    """
    options: dict[str, Any] = {"connection_pool": pool, "wrap_exceptions": True}
    return RedisStorage(url, key_prefix=f"litellm-plugin:{_digest(litellm)}:limit", **options)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
