"""Snapshots that all worker processes of one host share, in a file that each maps into memory.

The file is LMDB's: any number of processes read it at the same time and wait for nobody, one
at a time writes. It is a cache and no more. Whatever is wrong with it, it is thrown away and
begun anew, or done without; nothing here raises.

It belongs to one file of generations (:mod:`litellm_plugin.cache.host`), because an entry
counts only by those; to one start of the system, because it is not flushed to the disk, and
may be in pieces when that went down; and to one version of LMDB.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakValueDictionary

import lmdb

from litellm_plugin.cache.host import HostShared
from litellm_plugin.cache.memory import MemoryStore
from litellm_plugin.cache.sealed import Seal
from litellm_plugin.cache.store import Entry, Generations, Hold, Turn
from litellm_plugin.cache.waiting import Queue

log = logging.getLogger(__name__)

MAP_BYTES = 256 << 20  # how large the file gets at most; it begins small
MAX_READERS = 2048  # threads of all processes that read at the same moment

PATIENCE = 0.25  # seconds to wait for who is writing, which takes some microseconds
OPENING_PATIENCE = 2.0  # seconds to wait for who is opening the file
PAUSE = 5.0  # seconds to do without after a failure
QUIET = 60.0  # seconds between two complaints in the log
TOUCH_SECONDS = 3600.0  # well before anybody takes a temporary file for forgotten

# These say that the file itself is no good. Others are about the system, or this process.
_NO_GOOD = (
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)

_SWEPT = 4  # entries that a new one looks at, to take away those that have run out
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

# When it runs out, on the monotonic clock, which processes of one host have in common; when
# it was read, in Unix time; and its size in rows. It is sealed with the entry.
_HEAD = struct.Struct("=ddQ")


class SharedStore:
    """Entries in a file of this host, and before it in the memory of this process.

    Entries that are too large for the file, or hold something confidential, are kept in
    the memory of this process only.

    Args:
        memory: This process's own, and what it shares with the others of this host.
        seal: Turns entries into bytes.
        timer: Tells the time in seconds; the same to all processes, must never go back.
        map_bytes: How large the file gets at most.

    Raises:
        ValueError: ``memory`` shares no file with other processes.
    """

    def __init__(
        self,
        memory: MemoryStore,
        seal: Seal,
        timer: Callable[[], float] = time.monotonic,
        map_bytes: int = MAP_BYTES,
    ) -> None:
        self._memory = memory
        self._seal = seal
        self._timer = timer
        self._file = _file_of(memory.host, map_bytes)
        self._queue = Queue(memory.host)

    def look_up(
        self, key: str, scopes: tuple[str, ...], *, since: float = math.inf
    ) -> tuple[Entry | None, Generations]:
        """Return the entry of ``key``, and the present generations of ``scopes``."""
        kept, generations = self._memory.look_up(key, scopes)
        if kept is not None and kept.generations != generations:
            kept = None
        if kept is not None and kept.read_at > since:
            return kept, generations
        found = self._found(key)
        if found is None:
            return kept, generations
        entry, seconds, weight = found
        if entry.generations != generations or (kept and kept.read_at >= entry.read_at):
            return kept, generations
        self._memory.put(key, entry, seconds=seconds, weight=weight)
        return entry, generations

    def put(self, key: str, entry: Entry, *, seconds: float, weight: int) -> None:
        """Keep ``entry`` for ``seconds``, for all workers if it can be let out of this process."""
        self._memory.put(key, entry, seconds=seconds, weight=weight)
        name = _name(key)
        head = _HEAD.pack(self._timer() + seconds, entry.read_at, weight)
        data = self._seal.let_out(_sealed_as(name, head), entry)
        self._queue.note(key, shared=data is not None)
        if data is not None:
            self._file.put(name, head + data, self._timer())

    def reading(self, key: str, generations: Generations) -> AbstractContextManager[Turn]:
        """Let other workers wait while this one reads what then is in the file."""
        if not self._file.usable:
            return self._memory.reading(key, generations)
        return self._queue.turn(key, generations, look_anyway=True)

    def generations(self, scopes: tuple[str, ...]) -> Generations:
        """Return the present generations of ``scopes``."""
        return self._memory.generations(scopes)

    def alone(self, name: str) -> AbstractContextManager[Hold]:
        """Hold a lock that no other worker of this host holds."""
        return self._memory.alone(name)

    def bump(self, scopes: tuple[str, ...]) -> None:
        """Begin a new generation of each scope, for all workers of this host."""
        self._memory.bump(scopes)

    def _found(self, key: str) -> tuple[Entry, float, int] | None:
        """Return what the file has: the entry, its seconds left, and its size in rows."""
        name = _name(key)
        data = self._file.get(name)
        if data is None or len(data) < _HEAD.size:
            return None
        head = data[: _HEAD.size]
        until, _, weight = _HEAD.unpack(head)
        seconds = until - self._timer()
        entry = self._seal.open(_sealed_as(name, head), data[_HEAD.size :]) if seconds > 0 else None
        return None if entry is None else (entry, seconds, weight)


@dataclass(frozen=True, slots=True)
class _Opened:
    """The file as a process has it open."""

    environment: lmdb.Environment
    process: int
    identity: tuple[int, int]  # device and inode


class _File:
    """Bytes by name, for all processes of a host; where it fails, there are none.

    No transaction lasts beyond a call, and nothing that could let another thread or greenlet
    take over happens within one.

    Args:
        path: In a folder that only its user can use.
        host: Its locks let one process write at a time. LMDB has a lock of its own, for
            which nobody waits then: it would stop all greenlets of a worker.
        map_bytes: How large the file gets at most.
    """

    def __init__(self, path: Path, host: HostShared, map_bytes: int) -> None:
        self._path = path
        self._lock_path = path.with_name(f"{path.name}-lock")  # where LMDB has it
        self._host = host
        self._map_bytes = map_bytes
        self._opened: _Opened | None = None
        self._tidied_by = 0  # a process
        self._again_at = self._quiet_until = self._touch_at = -math.inf

    @property
    def usable(self) -> bool:
        """Whether it has not failed a moment ago."""
        return time.monotonic() >= self._again_at

    def get(self, name: bytes) -> bytes | None:
        """Return the bytes of ``name``, if there are any."""
        opened = self._present()
        if opened is None:
            return None
        try:
            with opened.environment.begin() as reading:
                return reading.get(name)
        except lmdb.ReadersFullError:
            self._complain("too many read at the same time")
        except lmdb.Error as exc:
            self._broke(exc, opened)
        return None

    def put(self, name: bytes, data: bytes, now: float) -> None:
        """Keep bytes, and take some away that have run out.

        Args:
            name: What they are found by.
            data: A head, and more.
            now: What the time is, as heads have it.
        """
        opened = self._present()
        if opened is None:
            return
        with self._host.alone("write snapshots", PATIENCE) as hold:
            if not hold.held:
                self._complain("somebody is writing for long")
                return
            try:
                self._write(opened.environment, name, data, now)
            except lmdb.Error as exc:
                self._broke(exc, opened)
        self._touch()

    # -- within the file -------------------------------------------------------

    def _write(self, environment: lmdb.Environment, name: bytes, data: bytes, now: float) -> None:
        # Half is for what is in use, as a write, and also taking everything away, needs pages
        # beside those that are being read.
        if _used(environment) + len(data) > self._map_bytes // 2:
            _clear(environment)
        try:
            _put(environment, name, data, now)
        except lmdb.MapFullError:
            environment.reader_check()  # who was killed while reading has kept old pages
            _clear(environment)
            _put(environment, name, data, now)

    # -- the file itself -------------------------------------------------------

    def _present(self) -> _Opened | None:
        """Return the file that all others use, open; None where there is none to be had."""
        opened = self._opened
        if opened is not None and opened.process == os.getpid():
            with suppress(OSError):
                if _identity(self._path) == opened.identity:
                    return opened
        if not self.usable:
            return None
        try:
            with self._opening():
                return self._open()
        except (lmdb.Error, OSError) as exc:
            self._broke(exc, None)
            return None

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """Let nobody else open the file, or take it away.

        Raises:
            OSError: Somebody else does so for long.
        """
        # A lock on the folder, because files in it come and go.
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            until = time.monotonic() + OPENING_PATIENCE
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise
                time.sleep(0.001)
            yield
        finally:
            os.close(folder)

    def _open(self) -> _Opened:
        opened, process = self._opened, os.getpid()
        with suppress(OSError):
            if opened and (opened.process, opened.identity) == (process, _identity(self._path)):
                return opened  # another thread was faster
        self._opened = None
        if opened is not None and opened.process != process:
            # What was open before a fork is the parent's. LMDB lets nobody open a file twice.
            opened.environment.close()
        self._tidy(process)
        try:
            environment = self._environment()
        except _NO_GOOD as exc:
            log.info("the file of snapshots is begun anew: %s", exc)
            self._remove()
            environment = self._environment()
        environment.reader_check()
        self._opened = _Opened(environment, process, _identity(self._path))
        return self._opened

    def _environment(self) -> lmdb.Environment:
        """Open the file, or make it.

        Raises:
            lmdb.Error: It is none of LMDB's, or can't be opened.
        """
        environment = lmdb.open(
            os.fspath(self._path),
            subdir=False,
            map_size=self._map_bytes,
            mode=0o600,
            max_readers=MAX_READERS,
            # One that is kept for later has a place in the lock file, which a forked child
            # would take away when it closes what it has inherited.
            max_spare_txns=0,
            # A cache has nothing to lose, and it does not outlive the system.
            sync=False,
            metasync=False,
        )
        try:
            pages = environment.info()["last_pgno"] + 1
            if pages * environment.stat()["psize"] > self._path.stat().st_size:
                # Reading what was cut off would be the end of the process.
                raise lmdb.CorruptedError("it has been cut")
        except BaseException:
            environment.close()
            raise
        return environment

    def _tidy(self, process: int) -> None:
        """Remove what is left of earlier starts, and a file that has lost its lock."""
        # Once only: workers of two versions would take each other's files away for ever.
        if self._tidied_by != process:
            self._tidied_by = process
            stem = self._path.name.partition("-")[0]
            for other in self._path.parent.glob(f"{stem}-*.lmdb*"):
                if other not in {self._path, self._lock_path}:
                    other.unlink(missing_ok=True)
        if not self._lock_path.exists():
            self._path.unlink(missing_ok=True)  # who has it open would not see our lock

    def _touch(self) -> None:
        """Let nobody who tidies temporary files up take ours for forgotten."""
        now = time.monotonic()
        if now >= self._touch_at:
            self._touch_at = now + TOUCH_SECONDS
            with suppress(OSError):
                os.utime(self._lock_path)
                self._host.touch()

    def _remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)

    def _broke(self, exc: Exception, opened: _Opened | None) -> None:
        """Do without the file for a while; throw it away if it is at fault."""
        self._again_at = time.monotonic() + PAUSE
        self._complain(str(exc))
        if opened is None:
            return
        with suppress(OSError), self._opening():
            if self._opened is opened:
                self._opened = None
            # Whoever has it open notices; also a disk that is full has room again.
            if _identity(self._path) == opened.identity:
                self._remove()

    def _complain(self, problem: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warning("snapshots are not shared with other workers for a while: %s", problem)


def _put(environment: lmdb.Environment, name: bytes, data: bytes, now: float) -> None:
    with environment.begin(write=True, buffers=True) as writing:
        cursor = writing.cursor()
        # From anywhere on, so that in the course of time all are looked at.
        there = cursor.set_range(os.urandom(len(name)))
        for _ in range(_SWEPT):
            if not there:
                break
            value = cursor.value()
            gone = len(value) < _HEAD.size or _HEAD.unpack_from(value)[0] <= now
            there = (cursor.delete() and bool(cursor.key())) if gone else cursor.next()
        if not _is_later(writing.get(name), data, now):
            writing.put(name, data)


def _is_later(kept: memoryview | None, data: bytes, now: float) -> bool:
    """Tell whether what is kept was read later than ``data``, which a write has overtaken then."""
    if kept is None or len(kept) < _HEAD.size:
        return False
    until, read_at, _ = _HEAD.unpack_from(kept)
    return bool(until > now and read_at > _HEAD.unpack_from(data)[1])


def _used(environment: lmdb.Environment) -> int:
    """Return how many bytes entries take up."""
    about = environment.stat()
    pages = about["branch_pages"] + about["leaf_pages"] + about["overflow_pages"]
    return pages * about["psize"]


def _clear(environment: lmdb.Environment) -> None:
    entries = environment.open_db()
    with environment.begin(write=True) as writing:
        writing.drop(entries, delete=False)


# LMDB lets a process have a file open once, and there may be several applications in it.
_files: WeakValueDictionary[Path, _File] = WeakValueDictionary()
_files_lock = threading.Lock()


def _file_of(host: HostShared, map_bytes: int) -> _File:
    """Return the one file that belongs to ``host``.

    Raises:
        ValueError: It is no file that other processes could find.
    """
    if host.path is None:
        raise ValueError("processes share nothing but what they inherit")
    of = repr((host.id, _boot_id(), lmdb.version(), map_bytes)).encode()
    name = f"{host.path.stem}-{hashlib.sha256(of).hexdigest()[:16]}.lmdb"
    path = host.path.with_name(name)
    with _files_lock:
        file = _files.get(path)
        if file is None:
            file = _files[path] = _File(path, host, map_bytes)
        return file


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text()
    except OSError:
        return ""  # not Linux


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _name(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _sealed_as(name: bytes, head: bytes) -> str:
    return f"host:{name.hex()}:{head.hex()}"
