"""The second tier: entries, stamps and locks that several hosts share, in Redis or Valkey.

A write gives its tags new stamps twice, in this host's memory (:mod:`litellm_plugin.cache.stamps`)
and in Redis, and notes in Redis which stamp of this host Redis was told of. Whoever looks
something up compares: where Redis was not told of all that was written on this host, because it
was away, has lost it or went back to an older state, the tags get new stamps in Redis before
anything there counts. So nobody reads what is older than their own write on the same host,
whatever happens to Redis.

What remains is another host, which can't know of a write that Redis was not told of. It may
answer from before that write until somebody looks the same up on the host that wrote, and no
longer than an entry is new; beyond that only as what stands in, marked as stale, for a LiteLLM
that is down.
"""

from __future__ import annotations

import hashlib
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
from litellm_plugin.cache.stamps import SHARED, Stamps, StampTable
from litellm_plugin.cache.tier import Entry, Seen, TierUnavailableError
from litellm_plugin.clients.circuit_breaker import CircuitBreaker

log = logging.getLogger(__name__)

CONNECT_SECONDS = 0.25
ANSWER_SECONDS = 0.5

STAMP_SECONDS = 24 * 3600  # any time will do; without its stamps nothing is valid

LOCK_SECONDS = 30.0  # after which a lock is free, whoever holds it
POLL = 0.02  # seconds between two attempts


def connect(url: str) -> Redis:
    """Return a client of a Redis or Valkey server, which may be down.

    Nothing is sent yet, and a forked child makes connections of its own.

    Args:
        url: ``redis://`` or ``rediss://``, with user, password and database if need be.
    """
    return Redis.from_url(
        url,
        protocol=2,  # understood by every version, and nothing is sent unasked
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),  # a second attempt would double the time-outs
    )


def fault(url: str) -> Exception | None:
    """Return what keeps the server from being used; None where it answers as it should.

    One name is read, as for an entry: it takes the way, the password and the right to read.

    Args:
        url: As :func:`connect` takes it.
    """
    redis = connect(url)
    try:
        redis.get("litellm-plugin:doctor")
    except (RedisError, OSError) as exc:
        return exc
    finally:
        redis.close()
    return None


class RedisTier:
    """Entries, stamps and locks of all hosts that use the same LiteLLM.

    Args:
        redis: What :func:`connect` returned.
        litellm: The proxy's address; stamps and locks are shared by those who use it.
        seal: Turns entries into bytes.
        stamps: Those of this host.
        timer: Tells the time in seconds; must never go back.
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
        # The braces let a cluster keep all of it in one place, for MGET and MULTI.
        self._prefix = f"litellm-plugin:{{{_digest(litellm)}}}"
        self._seal = seal
        self._here = stamps
        self._breaker = CircuitBreaker(
            "Redis", "each process goes on by its own memory", failures=1, timer=timer
        )

    def look_up(
        self, name: str, tags: tuple[str, ...], here: Stamps
    ) -> tuple[bytes | None, Stamps]:
        """Return a sealed entry, and the present stamps of its tags.

        One round trip; two where Redis was not told of a write.
        """
        with self._asking():
            *noted, sealed = self._read([*self._notes(tags), self._name("entry", name)])
            return sealed, self._agreed(tags, here, noted)

    def open(self, name: str, sealed: bytes, seen: Seen) -> Entry | None:
        """Return the entry that was sealed, if it is valid for who has seen these stamps."""
        entry = self._seal.open(self._name("entry", name), sealed)
        if entry is None or entry.shared != seen[1]:
            return None
        return replace(entry, here=seen[0])

    def put(self, name: str, entry: Entry) -> None:
        """Keep an entry, if it may leave this process."""
        stored = self._name("entry", name)
        data = self._seal.close(stored, entry)
        if data is not None:
            with self._asking():
                self._redis.set(stored, data, px=max(round(entry.seconds * 1000), 1))

    def stamps(self, tags: tuple[str, ...]) -> Stamps:
        """Return the present stamps of ``tags``."""
        here = self._here.of(tags)
        with self._asking():
            return self._agreed(tags, here, self._read(self._notes(tags)) if tags else [])

    def invalidate(self, tags: tuple[str, ...]) -> None:
        """Give each tag a new stamp, after it got one in this host's memory.

        Redis is asked even if it did not answer a moment ago, as other hosts may be
        able to reach it.
        """
        with self._asking(insist=True):
            self._renew(tags, tags)

    @contextmanager
    def lock(self, name: str, patience: float) -> Iterator[bool | None]:
        """Hold a lock that no other host holds.

        Args:
            name: What for.
            patience: How long to wait for it, in seconds.

        Yields:
            Whether it is held; None, while Redis is away.
        """
        lock = Lock(self._redis, self._name("lock", name), timeout=LOCK_SECONDS, sleep=POLL)
        held: bool | None = None
        with suppress(TierUnavailableError), self._asking():
            held = lock.acquire(blocking_timeout=max(patience, 0))
        try:
            yield held
        finally:
            if held:
                # It may have run out, or Redis be gone; then it is free before long.
                with suppress(LockError, TierUnavailableError), self._asking():
                    lock.release()

    # -- stamps ----------------------------------------------------------------

    def _notes(self, tags: Sequence[str]) -> list[str]:
        """Return where the stamps are, and then which stamps of this host Redis was told of."""
        return [*(self._name("stamp", tag) for tag in tags), *map(self._told, tags)]

    def _told(self, tag: str) -> str:
        return self._name(f"told:{self._here.id}", tag)

    def _agreed(self, tags: Sequence[str], here: Stamps, noted: Sequence[bytes | None]) -> Stamps:
        """Return the stamps in ``noted``; first renew those of writes Redis was not told of."""
        present, told = noted[: len(tags)], noted[len(tags) :]
        behind = [
            tag
            for tag, ours, theirs in zip(tags, here, told, strict=True)
            if ours != int(theirs or 0)
        ]
        if behind or None in present:
            return self._renew(tags, behind)
        return tuple(int(number) for number in present if number is not None)

    def _renew(self, tags: Sequence[str], anew: Sequence[str]) -> Stamps:
        """Give each tag a new stamp that is among ``anew`` or has none; return all."""
        # Read before Redis is told: what is written in between is made up for later.
        ours = self._here.of(tuple(anew))
        with self._redis.pipeline(transaction=True) as pipe:
            for tag in tags:
                stamp = secrets.randbits(63)
                pipe.set(self._name("stamp", tag), stamp, ex=STAMP_SECONDS, nx=tag not in anew)
            for tag, stamp in zip(anew, ours, strict=True):
                pipe.set(self._told(tag), stamp, ex=STAMP_SECONDS)
            pipe.mget([self._name("stamp", tag) for tag in tags])
            *_, present = pipe.execute()
        return tuple(map(int, present))

    # -- Redis -----------------------------------------------------------------

    def _name(self, kind: str, of: str) -> str:
        return f"{self._prefix}:{kind}:{_digest(of)}"

    def _read(self, names: list[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", self._redis.mget(names))

    @contextmanager
    def _asking(self, *, insist: bool = False) -> Iterator[None]:
        """Turn failures inside into TierUnavailableError, and wait a while after one."""
        if not insist and not self._breaker.admits():
            raise TierUnavailableError("Redis did not answer a moment ago")
        try:
            yield
        except LockError:
            raise
        except (RedisError, OSError, ValueError) as exc:  # the last: no number of ours
            self._breaker.failed(exc)
            raise TierUnavailableError(f"Redis does not answer: {exc}") from exc
        self._breaker.answered()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
