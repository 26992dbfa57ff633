"""What all worker processes of one host share: generations and locks, in one small file.

A worker must not answer from what it remembers after another worker has
written. So each scope has a counter in a file that all of them map into
memory: a write adds one, and a snapshot counts only while the counter is what
it was. Reading it is reading memory. Scopes share counters by hash; a
collision forgets too much, never too little.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import secrets
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from litellm_plugin.cache.store import Generations, Hold
from litellm_plugin.clients import deadline

log = logging.getLogger(__name__)

SLOTS = 1 << 16
_COUNTER = struct.Struct("=Q")
_ID = SLOTS * _COUNTER.size  # behind the counters
# How many requests of somebody are under way; when one of them began or ended last, and
# when the first of the row began: Unix time.
_ROW = struct.Struct("=Qdd")
_ROWS = _ID + _COUNTER.size
_SIZE = _ROWS + SLOTS * _ROW.size

PATIENCE = 30.0  # seconds to wait for a lock
LONGEST = 60.0  # seconds; whoever has not ended a request by then was killed

# File locks have no time-out of their own, so they are tried again and again: after a
# quarter of the time that was waited already, which is soon for who waits for little.
_POLL_LEAST, _POLL_MOST = 0.001, 0.05  # seconds


class HostShared:
    """Generations and locks that the processes of one host agree on.

    Args:
        path: The file, made with mode 0600 where there is none; not on a network
            file system. None shares with forked children only.

    Attributes:
        path: The file; None where only forked children share it.
        id: A random one, which those who share have in common.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._descriptor = opened(path)
        os.ftruncate(self._descriptor, _SIZE)
        self._map = mmap.mmap(self._descriptor, _SIZE)
        self._threads = between_threads(self._descriptor)
        self.id = self._identified()

    @classmethod
    def of_user(cls, name: str) -> HostShared:
        """Return what all processes of this user share under ``name``.

        Where the folder for temporary files can't be used, only processes that
        are forked from this one share it, as under ``preload_app`` of gunicorn.
        """
        try:
            file = f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.shared"
            return cls(private_folder() / file)
        except OSError as exc:
            log.warning("snapshots are shared with forked workers only: %s", exc)
            return cls(None)

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generation of each scope."""
        return tuple(_COUNTER.unpack_from(self._map, _slot(scope))[0] for scope in scopes)

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope."""
        with self._threads.counting:
            for scope in scopes:
                slot = _slot(scope)
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, slot)
                try:
                    (count,) = _COUNTER.unpack_from(self._map, slot)
                    _COUNTER.pack_into(self._map, slot, (count + 1) % (1 << 64))
                finally:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, slot)

    def begin(self, name: str, now: float, pause: float) -> float:
        """Note that a request of somebody begins.

        Args:
            name: Whose it is.
            now: Unix time, in seconds.
            pause: Seconds without any request of theirs after which a new row begins.

        Returns:
            When the first of this row of requests began.
        """
        with self._row(name) as at:
            under_way, last, first = _ROW.unpack_from(self._map, at)
            quiet = now - last
            if quiet > (LONGEST if under_way else pause) or quiet < 0:
                under_way, first = 0, now
            _ROW.pack_into(self._map, at, under_way + 1, now, first)
            return float(first)

    def end(self, name: str, now: float) -> None:
        """Note that it ends; arguments as for :meth:`begin`."""
        with self._row(name) as at:
            under_way, _, first = _ROW.unpack_from(self._map, at)
            _ROW.pack_into(self._map, at, max(under_way - 1, 0), now, first)

    @contextmanager
    def _row(self, name: str) -> Iterator[int]:
        at = _ROWS + _place(name) * _ROW.size
        with self._threads.counting:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, at)
            try:
                yield at
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, at)

    @contextmanager
    def alone(self, name: str, patience: float | None = None) -> Iterator[Hold]:
        """Hold a lock that no other process or thread of this host holds.

        It is a courtesy: who does not get it in time goes on without, because a
        worker that hangs must not stop the others.

        Args:
            name: What for.
            patience: How long to wait for it, in seconds, within the deadline of the request
                that is served; ``PATIENCE`` by default.
        """
        at = _SIZE + _number(name, 6)  # behind everything
        patience = min(PATIENCE if patience is None else patience, deadline.left())
        until = time.monotonic() + patience
        with self._threads.holding(at, until) as among_threads:
            if not among_threads.held:
                yield among_threads
                return
            among_processes = self._locked_in_time(at, until)
            try:
                waited = among_threads.waited or among_processes.waited
                yield Hold(among_processes.held, waited)
            finally:
                if among_processes.held:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, at)

    def touch(self) -> None:
        """Let nobody who tidies temporary files up take the file for forgotten."""
        os.utime(self._descriptor)

    def _identified(self) -> str:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _ID)
        try:
            (number,) = _COUNTER.unpack_from(self._map, _ID)
            if not number:
                number = secrets.randbits(63) | 1
                _COUNTER.pack_into(self._map, _ID, number)
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _ID)
        return f"{number:016x}"

    def _locked_in_time(self, at: int, until: float) -> Hold:
        began = time.monotonic()
        waited = False
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
            except (BlockingIOError, PermissionError):
                waited = True
            except OSError as exc:  # the system has no more locks to give
                log.debug("going on without a lock: %s", exc)
                return Hold(held=False, waited=waited)
            else:
                return Hold(held=True, waited=waited)
            now = time.monotonic()
            if now >= until:
                return Hold(held=False, waited=True)
            pause = min(max((now - began) / 4, _POLL_LEAST), _POLL_MOST)
            time.sleep(min(pause, until - now))


class _ThreadLocks:
    """What the locks of the file are to processes, for the threads of one process."""

    def __init__(self) -> None:
        self.counting = threading.Lock()
        self._changing = threading.Lock()
        # By place in the file; those that nobody holds or waits for are not kept. Each is
        # made when it is wanted, so that it is a greenlet's where those do the work.
        self._locks: dict[int, _ThreadLock] = {}

    @contextmanager
    def holding(self, at: int, until: float) -> Iterator[Hold]:
        """Hold the lock at a place of the file, unless it is not free before ``until``."""
        with self._changing:
            lock = self._locks.get(at)
            waited = lock is not None
            if lock is None:
                lock = self._locks[at] = _ThreadLock()
            lock.wanted_by += 1
        held = False
        try:
            held = lock.lock.acquire(timeout=max(until - time.monotonic(), 0))
            yield Hold(held, waited)
        finally:
            if held:
                lock.lock.release()
            with self._changing:
                lock.wanted_by -= 1
                if not lock.wanted_by:
                    del self._locks[at]


class _ThreadLock:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.wanted_by = 0


_thread_locks: dict[tuple[int, int], _ThreadLocks] = {}


def between_threads(descriptor: int) -> _ThreadLocks:
    """Return the locks among the threads of this process that go with an open file."""
    # By file, as a process may have several applications: a lock that one of them
    # has on the file keeps out other processes only. It stays open, so its number is its own.
    status = os.fstat(descriptor)
    return _thread_locks.setdefault((status.st_dev, status.st_ino), _ThreadLocks())


def opened(path: Path | None) -> int:
    """Return the descriptor of a file that is this user's alone; None: of one without a name."""
    if path is None:
        return os.memfd_create("litellm-plugin", os.MFD_CLOEXEC)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def private_folder() -> Path:
    """Return the folder for what this user's processes share, made if need be.

    Raises:
        OSError: It can't be made, or is not this user's alone.
    """
    folder = Path(tempfile.gettempdir()) / f"litellm-plugin-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"{folder} is open to others")
    return folder


def _slot(scope: str) -> int:
    return _place(scope) * _COUNTER.size


# A request looks at the same ones several times, and so do those that follow it.
@lru_cache(4096)
def _place(name: str) -> int:
    return _number(name, 4) % SLOTS


def _number(text: str, size: int) -> int:
    """Return a number of ``size`` bytes that stands for a text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
    return int.from_bytes(digest, "big")
