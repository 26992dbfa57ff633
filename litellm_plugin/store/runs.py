"""Records of runs of jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Select, delete, func, insert, select, update

from litellm_plugin.observability import metrics
from litellm_plugin.store.database import Store, StoreUnavailable
from litellm_plugin.store.tables import job_runs

KEPT = 100  # runs kept of each job

RUNNING, SUCCEEDED, FAILED, KILLED = "running", "succeeded", "failed", "killed"
PARTIAL = "partial"  # succeeded, for some accounts only

_c = job_runs.c


def begin(store: Store, job: str, at: str) -> int:
    """Record that a run, which holds the job's lock, begins at the time ``at``; return its id."""
    with store.write() as connection:
        # This process holds the lock, so another run with the status "running" was killed.
        connection.execute(
            update(job_runs)
            .where(_c.job == job, _c.status == RUNNING)
            .values(status=KILLED, ended_at=at)
        )
        row = insert(job_runs).values(job=job, started_at=at, status=RUNNING).returning(_c.id)
        number: int = connection.execute(row).scalar_one()
        return number


def save(store: Store, number: int, **values: Any) -> None:
    """Change columns of a run."""
    with store.write() as connection:
        connection.execute(update(job_runs).where(_c.id == number).values(**values))


def add(store: Store, job: str, **values: Any) -> None:
    """Record a dry run that has ended."""
    with store.write() as connection:
        connection.execute(insert(job_runs).values(job=job, dry_run=True, **values))


def prune(store: Store, job: str) -> None:
    """Delete old runs of a job: all but the last 100 and the last one that succeeded."""
    with store.write() as connection:
        own = select(_c.id).where(_c.job == job)
        oldest = connection.scalar(own.order_by(_c.id.desc()).offset(KEPT - 1).limit(1))
        if oldest is not None:
            last = connection.scalar(_last_success(job, _c.id)) or 0
            connection.execute(delete(job_runs).where(_c.job == job, _c.id < oldest, _c.id != last))


def last_counts(store: Store, job: str) -> dict[str, int]:
    """Return the counts of the last run that succeeded, except dry runs; empty without one."""
    with store.read() as connection:
        return connection.scalar(_last_success(job, _c.counts)) or {}


def _last_success(job: str, column: Column[Any]) -> Select[Any]:
    succeeded = select(column).where(_c.job == job, _c.status == SUCCEEDED, ~_c.dry_run)
    return succeeded.order_by(_c.id.desc()).limit(1)


def recent(store: Store, job: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the last runs, of one job or of all, the newest first."""
    wanted = select(job_runs).order_by(_c.id.desc()).limit(limit)
    if job is not None:
        wanted = wanted.where(_c.job == job)
    with store.read() as connection:
        return [dict(row) for row in connection.execute(wanted).mappings()]


def check_writable(store: Store) -> None:
    """Write a row and roll it back.

    Raises:
        StoreUnavailable: The database can't be written to.
    """
    with store.write() as connection:
        connection.execute(insert(job_runs).values(job="doctor", started_at="", status=RUNNING))
        connection.rollback()


def publish(store: Store) -> bool:
    """Set the metrics of jobs, and return whether the store can be used."""
    ended = (
        select(_c.job, _c.status, func.max(_c.ended_at))
        .where(~_c.dry_run, _c.status.in_([SUCCEEDED, FAILED, KILLED]))
        .group_by(_c.job, _c.status)
    )
    try:
        with store.read() as connection:
            rows = connection.execute(ended).all()
    except StoreUnavailable:
        return False
    for job, status, at in rows:
        metrics.job_ended(job, at, succeeded=status == SUCCEEDED)
    return True
