"""Runs of jobs: one at a time over all replicas, recorded in the store, resumable.

A job is a command such as ``litellm-plugin sync`` that goes through many accounts. Its run holds a
lock, and its row has a cursor: where the next run goes on if this one is killed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.errors import PluginError
from litellm_plugin.redaction import redact
from litellm_plugin.store import runs
from litellm_plugin.store.database import Lock, Store, StoreUnavailable
from litellm_plugin.store.runs import FAILED, KILLED, SUCCEEDED

NOW = partial(datetime.now, UTC)
LONGEST = 300  # characters of an error in a record
CHECKED_EACH = 1.0  # seconds between two checks of the job's lock


class JobRefused(Exception):
    """A job refuses to act; the message says why, and names nobody."""


class JobIsRunning(Exception):
    """Another process runs the job."""


@dataclass
class Run:
    """A run of a job.

    Attributes:
        job: Name of the job.
        dry_run: Whether the run only reports.
        cursor: Where a run that was killed or failed stopped; None at the beginning.
        counts: What the run did, by word, such as ``changed``.
        problem: Why a run that went to its end has failed; it names nobody.
    """

    job: str
    dry_run: bool
    cursor: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    _store: Store | None = None  # None: a dry run
    _number: int = 0
    _lock: Lock | None = None

    def checkpoint(self, cursor: str) -> None:
        """Record that all up to ``cursor`` is done; a dry run records nothing.

        Raises:
            StoreUnavailable: The database can't be used, or the job's lock was lost.
        """
        self.check()
        self.cursor = cursor
        if self._store is not None:
            runs.save(self._store, self._number, cursor=cursor, counts=dict(self.counts))

    def check(self) -> None:
        """Check that no other process may run the job.

        Raises:
            StoreUnavailable: The job's lock was lost.
        """
        if self._lock is not None:
            self._lock.check()


@contextmanager
def run(store: Store, job: str, *, dry_run: bool, now: Clock = NOW) -> Iterator[Run]:
    """Run a job: hold its lock, and record the run.

    A dry run changes nothing, needs no lock, begins at the beginning, and is recorded when it has
    ended, if the store can be written to.

    Raises:
        JobIsRunning: Another process runs the job.
        StoreUnavailable: The database can't be used.
    """
    if dry_run:
        begun, started = Run(job, dry_run=True), stamp(now)
        record = partial(runs.add, store, job, started_at=started)
        with _recorded(begun, record, now):
            yield begun
        return
    with store.lock(f"job-{job}") as lock:
        if lock is None:
            raise JobIsRunning(job)
        number, cursor = runs.begin(store, job, stamp(now))
        begun = Run(job, dry_run, cursor, _store=store, _number=number, _lock=lock)
        with _recorded(begun, partial(runs.save, store, number), now):
            yield begun
        runs.prune(store, job)


@contextmanager
def _recorded(begun: Run, record: Callable[..., None], now: Clock) -> Iterator[None]:
    """Record how a run ends."""
    try:
        yield
    except BaseException as exc:
        # The store may be what failed; the next run finds a row that still counts as running.
        with suppress(StoreUnavailable):
            begun.check()  # without the lock, another run has marked this one as killed
            record(status=_status(exc), error=_told(exc), **_end(begun, now))
        raise
    with suppress(StoreUnavailable) if begun.dry_run else nullcontext():
        status = FAILED if begun.problem else SUCCEEDED
        record(status=status, error=begun.problem, **_end(begun, now))


def _status(exc: BaseException) -> str:
    if isinstance(exc, SystemExit):
        return FAILED if exc.code else SUCCEEDED
    return FAILED if isinstance(exc, Exception) else KILLED


def _told(exc: BaseException) -> str | None:
    if isinstance(exc, SystemExit) and not exc.code:
        return None
    # Another error's text may name people.
    known = isinstance(exc, PluginError | StoreUnavailable | JobRefused)
    return redact(str(exc) if known else type(exc).__name__)[:LONGEST]


def _end(begun: Run, now: Clock) -> dict[str, Any]:
    return {"ended_at": stamp(now), "counts": dict(begun.counts)}


class Pace:
    """Lets calls through at a bounded rate.

    Args:
        per_second: Calls per second at most.
        check: Called before a call, at most once a second; its error stops the job.
    """

    def __init__(self, per_second: float, check: Callable[[], None] = lambda: None) -> None:
        self._interval = 1 / per_second
        self._guard = threading.Lock()
        self._next = 0.0
        self._check = check
        self._checked = 0.0

    def wait(self) -> None:
        """Wait until the next call may be made."""
        with self._guard:
            now = time.monotonic()
            due = max(self._next, now)
            self._next = due + self._interval
            checks = due >= self._checked + CHECKED_EACH
            if checks:
                self._checked = due
        if due > now:
            time.sleep(due - now)
        if checks:
            self._check()
