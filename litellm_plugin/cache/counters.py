"""Rate limits by the library ``limits``, counted in each worker's memory, or in Redis for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from cachetools import TLRUCache
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage, Storage
from limits.strategies import FixedWindowRateLimiter

from litellm_plugin.cache.stamps import digest
from litellm_plugin.clients.circuit_breaker import CircuitBreaker
from litellm_plugin.config.settings import Rate

MAX_OVER = 4096  # clients over a limit that each worker remembers


class Counters:
    """Counts requests of clients. Never raises, and never waits for long.

    Args:
        shared: The storage in which all workers count; None: each worker counts for itself, as
            it does while ``shared`` fails.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self, shared: Storage | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._shared = FixedWindowRateLimiter(shared) if shared is not None else None
        # Made by the first request: its storage starts a thread, which a fork would lose.
        self._own: FixedWindowRateLimiter | None = None
        self._breaker = CircuitBreaker("Redis", "each worker counts rate limits alone", failures=1)
        self._clock = clock
        self._lock = threading.Lock()
        # Unix time at which a client over a limit may ask again; until then it is not counted.
        self._over: TLRUCache[tuple[str, str], float] = TLRUCache(
            MAX_OVER, ttu=lambda _name, until, _now: until, timer=clock
        )

    def over(self, kind: str, name: str) -> float | None:
        """Return the seconds to wait; None for a client that is not known to be over a limit."""
        with self._lock:
            until = self._over.get((kind, name))
        return None if until is None else max(until - self._clock(), 0.0)

    def hit(self, rate: Rate, kind: str, name: str) -> float | None:
        """Count a request; return the seconds to wait where the client is over the limit."""
        wait = self.over(kind, name)
        if wait is None:
            wait = self._hit(RateLimitItemPerSecond(rate.amount, rate.seconds), kind, digest(name))
            if wait is not None:
                with self._lock:
                    self._over[kind, name] = self._clock() + wait
        return wait

    def _hit(self, item: RateLimitItem, *names: str) -> float | None:
        if self._shared is not None and self._breaker.admits():
            try:
                wait = self._counted(self._shared, item, names)
            except (StorageError, OSError, ValueError) as exc:
                self._breaker.failed(exc)
            else:
                self._breaker.succeeded()
                return wait
        with self._lock:
            if self._own is None:
                self._own = FixedWindowRateLimiter(MemoryStorage())
        return self._counted(self._own, item, names)

    def _counted(
        self, limiter: FixedWindowRateLimiter, item: RateLimitItem, names: tuple[str, ...]
    ) -> float | None:
        if limiter.hit(item, *names):
            return None
        return max(limiter.get_window_stats(item, *names).reset_time - self._clock(), 0.0)


def in_redis(pool: object, url: str, litellm: str) -> Storage:
    """Return a storage in Redis or Valkey, which may be down.

    Args:
        pool: Connections with time-outs.
        url: The server's address.
        litellm: LiteLLM's address; all services that use it count together.
    """
    options: dict[str, Any] = {"connection_pool": pool, "wrap_exceptions": True}
    return RedisStorage(url, key_prefix=f"litellm-plugin:{digest(litellm)}:limit", **options)
