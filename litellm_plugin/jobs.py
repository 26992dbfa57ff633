"""Runs of jobs: one at a time over all replicas, recorded in the store, resumable.

A job is a command such as ``litellm-plugin sync`` that goes through many accounts. Its run holds a
lock, and its row has a cursor: where the next run goes on if this one is killed.
"""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import insert, select, update

from litellm_plugin.clock import Clock, stamp
from litellm_plugin.store.database import Store
from litellm_plugin.store.tables import job_runs

NOW = partial(datetime.now, UTC)
RUNNING, SUCCEEDED, FAILED, KILLED = "running", "succeeded", "failed", "killed"


class JobIsRunning(Exception):
    """Another process runs the job."""


@dataclass
class Run:
    """A run of a job.

    Attributes:
        id: The number of its row.
        job: Name of the job.
        dry_run: Whether the run only reports.
        cursor: Where a run that was killed stopped; None at the beginning.
        counts: What the run did, by word, such as ``changed``.
    """

    id: int
    job: str
    dry_run: bool
    cursor: str | None
    counts: Counter[str] = field(default_factory=Counter)
    _store: Store | None = None

    def checkpoint(self, cursor: str) -> None:
        """Record that all up to ``cursor`` is done.

        Raises:
            StoreUnavailable: The database can't be used.
        """
        self.cursor = cursor
        self._save(cursor=cursor, counts=dict(self.counts))

    def _save(self, **values: Any) -> None:
        if self._store is not None:
            with self._store.write() as connection:
                connection.execute(
                    update(job_runs).where(job_runs.c.id == self.id).values(**values)
                )


@contextmanager
def run(store: Store, job: str, *, dry_run: bool, now: Clock = NOW) -> Iterator[Run]:
    """Run a job: hold its lock, and record the run.

    A dry run changes nothing, needs no lock and begins at the beginning.

    Raises:
        JobIsRunning: Another process runs the job.
        StoreUnavailable: The database can't be used.
    """
    with store.lock(f"job-{job}") as held:
        if not held and not dry_run:
            raise JobIsRunning(job)
        row = _begin(store, job, dry_run=dry_run, now=now)
        try:
            yield row
        except BaseException as exc:
            status = FAILED if isinstance(exc, Exception) else KILLED
            # Only the kind: the text may name people or addresses.
            row._save(status=status, error=type(exc).__name__, **_end(row, now))  # noqa: SLF001
            raise
        row._save(status=SUCCEEDED, **_end(row, now))  # noqa: SLF001


def _end(row: Run, now: Clock) -> dict[str, Any]:
    return {"ended_at": stamp(now), "counts": dict(row.counts)}


def _begin(store: Store, job: str, *, dry_run: bool, now: Clock) -> Run:
    c = job_runs.c
    with store.write() as connection:
        cursor = None
        if not dry_run:
            # The lock is ours, so a run that still counts as running was killed.
            connection.execute(
                update(job_runs)
                .where(c.job == job, c.status == RUNNING, ~c.dry_run)
                .values(status=KILLED, ended_at=stamp(now))
            )
            last = connection.execute(
                select(c.status, c.cursor)
                .where(c.job == job, ~c.dry_run)
                .order_by(c.id.desc())
                .limit(1)
            ).first()
            cursor = last.cursor if last is not None and last.status != SUCCEEDED else None
        number: int = connection.execute(
            insert(job_runs)
            .values(
                job=job,
                host=platform.node(),
                started_at=stamp(now),
                status=RUNNING,
                dry_run=dry_run,
                cursor=cursor,
                counts={},
            )
            .returning(c.id)
        ).scalar_one()
    return Run(number, job, dry_run, cursor, _store=store)


class Pace:
    """Lets calls through at a bounded rate.

    Args:
        per_second: Calls per second at most.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._guard = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Wait until the next call may be made."""
        with self._guard:
            now = time.monotonic()
            due = max(self._next, now)
            self._next = due + self._interval
        if due > now:
            time.sleep(due - now)
