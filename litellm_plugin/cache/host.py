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
from contextlib import contextmanager, suppress
from pathlib import Path

from litellm_plugin.cache.store import Generations

log = logging.getLogger(__name__)

SLOTS = 1 << 16
_COUNTER = struct.Struct("=Q")
_ID = SLOTS * _COUNTER.size  # behind the counters
_SIZE = _ID + _COUNTER.size
_STRIPES = 256

PATIENCE = 30.0  # seconds to wait for a lock
POLL = 0.01  # seconds; file locks have no time-out of their own


class HostShared:
    """Generations and locks that the processes of one host agree on.

    Args:
        path: The file, made with mode 0600 where there is none; not on a network
            file system. None shares with forked children only.

    Attributes:
        id: A random one, which those who share have in common.
    """

    def __init__(self, path: Path | None) -> None:
        self._descriptor = _opened(path)
        os.ftruncate(self._descriptor, _SIZE)
        self._map = mmap.mmap(self._descriptor, _SIZE)
        between_threads = _between_threads(self._descriptor)
        self._counting, self._holding = between_threads.counting, between_threads.holding
        self.id = self._identified()

    @classmethod
    def of_user(cls, name: str) -> HostShared:
        """Return what all processes of this user share under ``name``.

        Where the folder for temporary files can't be used, only processes that
        are forked from this one share it, as under ``preload_app`` of gunicorn.
        """
        folder = Path(tempfile.gettempdir()) / f"litellm-plugin-{os.geteuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError(f"{folder} belongs to somebody else")
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise PermissionError(f"{folder} is open to others")
            return cls(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.shared")
        except OSError as exc:
            log.warning("snapshots are shared with forked workers only: %s", exc)
            return cls(None)

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generation of each scope."""
        return tuple(_COUNTER.unpack_from(self._map, _slot(scope))[0] for scope in scopes)

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope."""
        with self._counting:
            for scope in scopes:
                slot = _slot(scope)
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, slot)
                try:
                    (count,) = _COUNTER.unpack_from(self._map, slot)
                    _COUNTER.pack_into(self._map, slot, (count + 1) % (1 << 64))
                finally:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, slot)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a lock that no other process or thread of this host holds.

        It is a courtesy: who does not get it in time goes on without, because a
        worker that hangs must not stop the others.
        """
        offset = _SIZE + _slot(name)  # behind everything
        until = time.monotonic() + PATIENCE
        threads = self._holding[offset // _COUNTER.size % _STRIPES]
        has_threads = threads.acquire(timeout=PATIENCE)
        try:
            has_file = has_threads and self._locked_in_time(offset, until)
            try:
                yield
            finally:
                if has_file:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, offset)
        finally:
            if has_threads:
                threads.release()

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

    def _locked_in_time(self, offset: int, until: float) -> bool:
        while True:
            with suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(POLL)


class _ThreadLocks:
    """What the locks of the file are to processes, for the threads of one process."""

    def __init__(self) -> None:
        self.counting = threading.Lock()
        self.holding = tuple(threading.Lock() for _ in range(_STRIPES))


_thread_locks: dict[tuple[int, int], _ThreadLocks] = {}


def _between_threads(descriptor: int) -> _ThreadLocks:
    # By file, as a process may have several applications: a lock that one of them
    # has on the file keeps out other processes only. It stays open, so its number is its own.
    status = os.fstat(descriptor)
    return _thread_locks.setdefault((status.st_dev, status.st_ino), _ThreadLocks())


def _opened(path: Path | None) -> int:
    if path is None:
        return os.memfd_create("litellm-plugin", os.MFD_CLOEXEC)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(path, flags, 0o600)


def _slot(scope: str) -> int:
    digest = hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % SLOTS * _COUNTER.size
