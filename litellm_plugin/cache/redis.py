"""The second tier: entries, stamps and locks that several hosts share, in Redis or Valkey.

A write gives its tags new stamps twice: in this host's memory (:mod:`litellm_plugin.cache.stamps`)
and in Redis. Redis also stores, for each host and tag, the last stamp in that host's memory that
it received. Each look-up compares the two. Where they differ, Redis missed a write on this host:
it was down, has lost data, or was restored to an older state. Then the tags get new stamps in
Redis, which invalidates the entries there. So a read never returns what is older than a write on
the same host, whatever happens to Redis.

Another host can't know of a write that Redis missed. It may answer with data from before that
write until the host that wrote looks the same tags up, and for the TTL of an entry at most; after
that only with entries marked as stale, while LiteLLM is down.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import LockError, RedisError
from redis.lock import Lock
from redis.retry import Retry

from litellm_plugin.cache.sealed import Seal
from litellm_plugin.cache.stamps import (
    SHARED,
    Entry,
    Seen,
    Stamps,
    StampTable,
    TierUnavailableError,
    digest,
)
from litellm_plugin.clients.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

CONNECT_SECONDS = 0.25
ANSWER_SECONDS = 0.5

STAMP_SECONDS = 24 * 3600  # any time is safe: an entry without stamps is not valid

LOCK_SECONDS = 30.0  # after which a lock is released, even if its holder was killed
POLL = 0.02  # seconds between two attempts


def connect(url: str) -> Redis:
    """Return a client of a Redis or Valkey server, which may be down.

    Nothing is sent yet, and a forked child makes connections of its own.

    Args:
        url: ``redis://`` or ``rediss://``, with user, password and database if need be.
    """
    return Redis.from_url(
        url,
        protocol=2,  # every version has it, and the server sends nothing unasked
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),  # a second attempt would double the time-outs
    )


def fault(url: str) -> Exception | None:
    """Return the error of reading a key; None where the server at ``url`` can be used."""
    with connect(url) as redis:
        try:
            redis.get("litellm-plugin:doctor")
        except (RedisError, OSError) as exc:
            return exc
    return None


class RedisTier:
    """Entries, stamps and locks of all hosts that use the same LiteLLM.

    Args:
        redis: The client that :func:`connect` returned.
        litellm: LiteLLM's address; all services that use it share stamps and locks.
        seal: Turns entries into bytes.
        stamps: The stamps in this host's memory.
        timer: Returns a monotonic time in seconds.
    """

    def __init__(
        self,
        redis: Redis,
        litellm: str,
        seal: Seal,
        stamps: StampTable = SHARED,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        # The braces make a cluster store all keys on one node, as MGET and MULTI need.
        self._prefix = f"litellm-plugin:{{{digest(litellm)}}}"
        self._seal = seal
        self._here = stamps
        self._breaker = CircuitBreaker(
            "Redis", "each process goes on by its own memory", failures=1, timer=timer
        )

    def look_up(
        self, name: str, tags: tuple[str, ...], here: Stamps
    ) -> tuple[bytes | None, Stamps]:
        """Return the sealed entry of ``name``, and the present stamps of its tags.

        One round trip; two where Redis missed a write. ``here`` has the present stamps of the
        tags in this host's memory.

        Raises:
            TierUnavailableError: Redis does not answer; the methods below raise this, too.
        """
        with self._guarded():
            *found, sealed = self._read([*self._stamp_names(tags), self._name("entry", name)])
            return sealed, self._agreed(tags, here, found)

    def open(self, name: str, sealed: bytes, seen: Seen) -> Entry | None:
        """Return the entry that was sealed; None where it is not valid for these stamps."""
        entry = self._seal.open(self._name("entry", name), sealed)
        if entry is None or entry.shared != seen[1]:
            return None
        return replace(entry, here=seen[0])

    def put(self, name: str, entry: Entry) -> None:
        """Store an entry, if it may leave this process."""
        stored = self._name("entry", name)
        data = self._seal.close(stored, entry)
        if data is not None:
            with self._guarded():
                self._redis.set(stored, data, px=max(round(entry.seconds * 1000), 1))

    def stamps(self, tags: tuple[str, ...]) -> Stamps:
        """Return the present stamps of ``tags``."""
        here = self._here.of(tags)
        with self._guarded():
            return self._agreed(tags, here, self._read(self._stamp_names(tags)) if tags else [])

    def invalidate(self, tags: tuple[str, ...]) -> None:
        """Give each tag a new stamp, after it got one in this host's memory.

        Even an open circuit breaker lets this pass, as other hosts may be able to reach Redis.
        """
        with self._guarded(insist=True):
            self._renew(tags, tags)

    @contextmanager
    def lock(self, name: str, patience: float) -> Iterator[bool | None]:
        """Wait for a lock across all hosts for ``patience`` seconds, and hold it.

        Yields:
            Whether the lock is held; None while Redis is down.
        """
        lock = Lock(self._redis, self._name("lock", name), timeout=LOCK_SECONDS, sleep=POLL)
        held: bool | None = None
        with suppress(TierUnavailableError), self._guarded():
            held = lock.acquire(blocking_timeout=max(patience, 0))
        try:
            yield held
        finally:
            if held:
                # LockError: the lock has expired, as it does by itself while Redis is down.
                with suppress(LockError, TierUnavailableError), self._guarded():
                    lock.release()

    # -- stamps ----------------------------------------------------------------

    def _stamp_names(self, tags: Sequence[str]) -> list[str]:
        """Return the names of the tags' stamps, then of the stamps that Redis received."""
        return [*(self._name("stamp", tag) for tag in tags), *map(self._received, tags)]

    def _received(self, tag: str) -> str:
        return self._name(f"received:{self._here.id}", tag)

    def _agreed(self, tags: Sequence[str], here: Stamps, found: Sequence[bytes | None]) -> Stamps:
        """Return the present stamps of tags, renewed where Redis missed a write."""
        present, received = found[: len(tags)], found[len(tags) :]
        behind = [
            tag
            for tag, ours, theirs in zip(tags, here, received, strict=True)
            if ours != int(theirs or 0)
        ]
        if behind or None in present:
            return self._renew(tags, behind)
        return tuple(int(number) for number in present if number is not None)

    def _renew(self, tags: Sequence[str], anew: Sequence[str]) -> Stamps:
        """Give a new stamp to the tags in ``anew``, and to those without one; return all stamps."""
        # Read first: a write in between is noticed by the next look-up.
        ours = self._here.of(tuple(anew))
        with self._redis.pipeline(transaction=True) as pipe:
            for tag in tags:
                stamp = secrets.randbits(63)
                pipe.set(self._name("stamp", tag), stamp, ex=STAMP_SECONDS, nx=tag not in anew)
            for tag, stamp in zip(anew, ours, strict=True):
                pipe.set(self._received(tag), stamp, ex=STAMP_SECONDS)
            pipe.mget([self._name("stamp", tag) for tag in tags])
            *_, present = pipe.execute()
        return tuple(map(int, present))

    # -- Redis -----------------------------------------------------------------

    def _name(self, kind: str, of: str) -> str:
        return f"{self._prefix}:{kind}:{digest(of)}"

    def _read(self, names: list[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", self._redis.mget(names))

    @contextmanager
    def _guarded(self, *, insist: bool = False) -> Iterator[None]:
        """Raise TierUnavailableError for failures in the block, and while the breaker is open."""
        if not insist and not self._breaker.admits():
            raise TierUnavailableError("Redis did not answer a moment ago")
        try:
            yield
        except LockError:
            raise
        except (RedisError, OSError, ValueError) as exc:  # ValueError: a stamp is no number
            self._breaker.failed(exc)
            raise TierUnavailableError(f"Redis does not answer: {exc}") from exc
        self._breaker.succeeded()
