"""Snapshots, generations and locks that several hosts share, in Redis or Valkey.

A generation here is a random number, and not a count: Redis may forget it, or go back
to an older one when it restarts, and a number that was drawn anew is never one that was
there before.

A write begins a new generation twice, on this host (:mod:`litellm_plugin.cache.host`) and
in Redis, and notes in Redis up to which count of this host it was told. Whoever looks
something up compares: where Redis was not told of all that was written on this host,
because it was away or has lost it, that is made up for before anything in it counts. So
nobody reads their own write stale on the same host, whatever happens to Redis.

What remains is another host, on which nobody can know of a write that Redis was not told
of. It may answer from before that write until somebody looks the same up on the host that
wrote, and no longer than a snapshot lives; beyond that only as what stands in, marked as
stale, for a LiteLLM that is down.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import cast

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import LockError, RedisError
from redis.lock import Lock
from redis.retry import Retry

from litellm_plugin.cache.line import Line
from litellm_plugin.cache.memory import MemoryStore
from litellm_plugin.cache.sealed import Seal
from litellm_plugin.cache.store import Entry, Generations, Hold, StoreUnavailableError, Turn
from litellm_plugin.cache.waiting import Queue
from litellm_plugin.clients import deadline

log = logging.getLogger(__name__)

CONNECT_SECONDS = 0.25
ANSWER_SECONDS = 0.5

GENERATION_SECONDS = 24 * 3600  # any time will do; without its generation nothing counts

LOCK_SECONDS = 30.0  # after which a lock is free, whoever holds it
PATIENCE = 30.0  # seconds to wait for a lock
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

    One name is read, as for a snapshot: it takes the way, the password and the right to read.

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


class RedisStore:
    """Entries, generations and locks of all hosts that use the same LiteLLM.

    Entries that are too large for Redis, or hold something confidential, are kept in
    the memory of this process; their generations are those of all hosts all the same.

    Args:
        redis: What :func:`connect` returned.
        litellm: The proxy's address; generations and locks are shared by those who use it.
        seal: Turns entries into bytes.
        memory: This process's own, and what it shares with the others of this host.
        timer: Tells the time in seconds; must never go back.
    """

    def __init__(
        self,
        redis: Redis,
        litellm: str,
        seal: Seal,
        memory: MemoryStore,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        # The braces let a cluster keep all of it in one place, for MGET and MULTI.
        self._prefix = f"litellm-plugin:{{{_digest(litellm)}}}"
        self._seal = seal
        self._memory = memory
        self._queue = Queue(memory.host)
        self._line = Line("snapshots are not used", timer)

    def look_up(
        self,
        key: str,
        scopes: tuple[str, ...],
        *,
        since: float = math.inf,  # noqa: ARG002 - Redis has the generations, and is asked anyway
    ) -> tuple[Entry | None, Generations]:
        """Return the entry of ``key``, and the present generations of ``scopes``.

        One round trip; two where a generation has to be made up for.
        """
        kept, here = self._memory.look_up(key, scopes)
        name = self._name("entry", key)
        with self._asking(known=here):
            *noted, sealed = self._read([*self._notes(scopes), name])
            generations = self._agreed(scopes, here, noted)
        found = self._seal.open(name, sealed) if sealed else None
        entries = [entry for entry in (found, kept) if entry is not None]
        return max(entries, key=lambda entry: entry.read_at, default=None), generations

    def put(self, key: str, entry: Entry, *, seconds: float, weight: int) -> None:
        """Keep ``entry`` for ``seconds``, for all hosts if it can be let out of this process."""
        name = self._name("entry", key)
        data = self._seal.let_out(name, entry)
        self._queue.note(key, shared=data is not None)
        if data is None:
            self._memory.put(key, entry, seconds=seconds, weight=weight)
            return
        with self._asking():
            self._redis.set(name, data, px=max(round(seconds * 1000), 1))

    def reading(self, key: str, generations: Generations) -> AbstractContextManager[Turn]:
        """Let other workers of this host wait for what then is in Redis.

        Not those of other hosts: a lock in Redis would cost every read two round trips more.
        """
        return self._queue.turn(key, generations)

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generations of ``scopes``."""
        if not scopes:
            return ()
        here = self._memory.generations(scopes)
        with self._asking():
            return self._agreed(scopes, here, self._read(self._notes(scopes)))

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope: on this host in any case, then for all.

        Redis is asked even if it did not answer a moment ago, as other hosts may be
        able to reach it.
        """
        self._memory.bump(scopes)
        if scopes:
            with self._asking(insist=True):
                self._begin(scopes, scopes)

    @contextmanager
    def alone(self, name: str) -> Iterator[Hold]:
        """Hold a lock that nobody else holds, on this host or, while Redis is up, on any.

        As on one host it is a courtesy: who does not get it in time goes on without.
        """
        until = time.monotonic() + min(PATIENCE, deadline.left())
        with self._memory.alone(name) as here:
            lock = self._locked(self._name("lock", name), until)
            try:
                yield Hold(here.held and lock is not None, here.waited)
            finally:
                if lock is not None:
                    # It may have run out, or Redis be gone; then it is free before long.
                    with suppress(LockError, StoreUnavailableError), self._asking():
                        lock.release()

    # -- generations -----------------------------------------------------------

    def _notes(self, scopes: Sequence[str]) -> list[str]:
        """Return where the generations are, and then up to which count Redis was told."""
        generations = [self._name("generation", scope) for scope in scopes]
        return [*generations, *map(self._told, scopes)]

    def _told(self, scope: str) -> str:
        return self._name(f"told:{self._memory.host.id}", scope)

    def _agreed(
        self, scopes: Sequence[str], here: Generations, noted: Sequence[bytes | None]
    ) -> Generations:
        """Return the generations in ``noted``; first make up for what Redis was not told of."""
        present, told = noted[: len(scopes)], noted[len(scopes) :]
        behind = [
            scope
            for scope, ours, theirs in zip(scopes, here, told, strict=True)
            if ours != int(theirs or 0)
        ]
        if behind or None in present:
            return self._begin(scopes, behind)
        return tuple(int(number) for number in present if number is not None)

    def _begin(self, scopes: Sequence[str], anew: Sequence[str]) -> Generations:
        """Begin a generation of each scope that is among ``anew`` or has none; return all."""
        # Read before Redis is told: what is written in between is made up for later.
        counts = self._memory.generations(tuple(anew))
        with self._redis.pipeline(transaction=True) as pipe:
            for scope in scopes:
                name = self._name("generation", scope)
                number = secrets.randbits(63)
                pipe.set(name, number, ex=GENERATION_SECONDS, nx=scope not in anew)
            for scope, count in zip(anew, counts, strict=True):
                pipe.set(self._told(scope), count, ex=GENERATION_SECONDS)
            pipe.mget([self._name("generation", scope) for scope in scopes])
            *_, present = pipe.execute()
        return tuple(map(int, present))

    # -- Redis -----------------------------------------------------------------

    def _name(self, kind: str, of: str) -> str:
        return f"{self._prefix}:{kind}:{_digest(of)}"

    def _read(self, names: list[str]) -> list[bytes | None]:
        return cast("list[bytes | None]", self._redis.mget(names))

    def _locked(self, name: str, until: float) -> Lock | None:
        """Return the lock, held; None where it can't be had."""
        lock = Lock(self._redis, name, timeout=LOCK_SECONDS, sleep=POLL)
        try:
            with self._asking():
                if lock.acquire(blocking_timeout=max(until - time.monotonic(), 0)):
                    return lock
        except StoreUnavailableError:
            log.debug("%s is locked on this host only", name)
        return None

    @contextmanager
    def _asking(self, *, insist: bool = False, known: Generations = ()) -> Iterator[None]:
        """Turn failures inside into StoreUnavailableError, and wait a while after one."""
        if not insist and not self._line.open():
            raise StoreUnavailableError("Redis did not answer a moment ago", known=known)
        try:
            yield
        except LockError:
            raise
        except (RedisError, OSError, ValueError) as exc:  # the last: no number of ours
            self._line.broke(exc)
            raise StoreUnavailableError(f"Redis does not answer: {exc}", known=known) from exc
        self._line.held()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
