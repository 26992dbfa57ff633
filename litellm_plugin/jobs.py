"""Runs of jobs: one at a time over all replicas, recorded in the store.

A job is a command such as ``litellm-plugin sync`` that goes through many accounts. Its run holds a
lock. What a killed run has left undone, the next run does.
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

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.errors import PluginError
from litellm_plugin.redaction import redact
from litellm_plugin.store import runs
from litellm_plugin.store.database import Lock, Store, StoreUnavailable
from litellm_plugin.store.runs import FAILED, KILLED, PARTIAL, SUCCEEDED

NOW = partial(datetime.now, UTC)
MAX_ERROR = 300  # characters of an error in a record
CHECK_INTERVAL = 1.0  # seconds between two checks of the job's lock


class JobIsRunning(Exception):
    """Another process runs the job."""


@dataclass
class Run:
    """A run of a job.

    Attributes:
        job: Name of the job.
        dry_run: Whether the run only reports.
        counts: Numbers to report, by a word such as ``changed``.
        problem: Why a run that went to its end has failed; the text names no person.
        partial: Whether the run goes through some of the accounts only.
    """

    job: str
    dry_run: bool
    counts: Counter[str] = field(default_factory=Counter)
    problem: str | None = None
    partial: bool = False
    _lock: Lock | None = None

    def check(self) -> None:
        """Check that the job's lock is held, so that no other process runs the job.

        Raises:
            StoreUnavailable: The job's lock was lost.
        """
        if self._lock is not None:
            self._lock.check()


@contextmanager
def run(store: Store, job: str, *, dry_run: bool, now: Clock = NOW) -> Iterator[Run]:
    """Run a job: hold its lock, and record the run.

    A dry run takes no lock, and is recorded at its end, if the store can be written to.

    Raises:
        JobIsRunning: Another process runs the job.
        StoreUnavailable: The database can't be used.
    """
    if dry_run:
        begun = Run(job, dry_run)
        with _recorded(begun, partial(runs.add, store, job, started_at=stamp(now)), now):
            yield begun
        return
    with store.lock(f"job-{job}") as lock:
        if lock is None:
            raise JobIsRunning(job)
        number = runs.begin(store, job, stamp(now))
        begun = Run(job, dry_run, _lock=lock)
        with _recorded(begun, partial(runs.save, store, number), now):
            yield begun
        runs.prune(store, job)


@contextmanager
def _recorded(begun: Run, record: Callable[..., None], now: Clock) -> Iterator[None]:
    """Record how a run ends."""

    def end(status: str, error: str | None = None) -> None:
        record(status=status, error=error, ended_at=stamp(now), counts=dict(begun.counts))

    try:
        yield
    except BaseException as exc:
        # If the store has failed, the row still has the status "running"; the next run mends it.
        with suppress(StoreUnavailable):
            begun.check()  # without the lock, another run has marked this one as killed
            # The text of other errors may name people.
            known = isinstance(exc, PluginError | StoreUnavailable)
            error = redact(str(exc) if known else type(exc).__name__)[:MAX_ERROR]
            end(FAILED if isinstance(exc, Exception) else KILLED, error)
        raise
    with suppress(StoreUnavailable) if begun.dry_run else nullcontext():
        succeeded = PARTIAL if begun.partial else SUCCEEDED
        end(FAILED if begun.problem else succeeded, begun.problem)


class Pace:
    """Limits the rate of calls.

    ``check`` is called before a call, at most once a second; its error stops the job.
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
            checks = due >= self._checked + CHECK_INTERVAL
            if checks:
                self._checked = due
        if due > now:
            time.sleep(due - now)
        if checks:
            self._check()
