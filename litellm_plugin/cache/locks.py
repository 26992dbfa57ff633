"""Locks across the processes of a host, on files in a folder of the service's user.

The operating system releases a lock when the process that holds it is killed.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)

FILES = 1 << 10  # at most; two names with the same file share a lock
POLL = 0.01  # seconds between two attempts


class FileLocks:
    """Locks by name, for all processes of this host's user.

    Where the folder can't be used, no lock is acquired, and the log says why.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # By process, as a forked child can't use its parent's locks.
        self._locks: dict[tuple[int, Path], FileLock] = {}

    @contextmanager
    def hold(self, name: str, patience: float) -> Iterator[bool]:
        """Acquire a lock and release it at the end; a thread may acquire the same lock again.

        Yields:
            Whether the lock is held; False where others held it for ``patience`` seconds.
        """
        held = False
        try:
            lock = self._lock(name)
            lock.acquire(timeout=max(patience, 0), poll_interval=POLL)
            held = True
        except Timeout:
            pass
        except OSError as exc:
            log.warning("Locks between workers can't be used, check TMPDIR: %s", exc)
        try:
            yield held
        finally:
            if held:
                lock.release()

    def _lock(self, name: str) -> FileLock:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        path = private_folder() / f"{int.from_bytes(digest, 'big') % FILES:03x}.lock"
        # The same object each time, or a thread would wait for a lock that it holds.
        with self._guard:
            return self._locks.setdefault((os.getpid(), path), FileLock(path, mode=0o600))


def private_folder() -> Path:
    """Return the folder that this user's processes share; make it where it is missing.

    Raises:
        OSError: The folder can't be made, or other users could use it.
    """
    folder = Path(tempfile.gettempdir()) / f"litellm-plugin-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"{folder} is open to other users")
    return folder
