"""Runs of jobs: one at a time, recorded, resumable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from litellm_plugin import jobs
from litellm_plugin.config.database import Database
from litellm_plugin.errors import PluginError
from litellm_plugin.store import runs
from litellm_plugin.store.database import Store, StoreUnavailable


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(Database())
    yield store
    store.close()


def last(store: Store) -> dict[str, Any]:
    return runs.recent(store, None, 1)[0]


def test_a_run_is_recorded(store: Store) -> None:
    with jobs.run(store, "sync", dry_run=False) as run:
        run.counts["changed"] += 2
        assert last(store)["status"] == "running"
    assert last(store)["status"] == "succeeded"
    assert last(store)["counts"] == {"changed": 2}
    assert last(store)["error"] is None


def test_a_second_process_does_not_run_the_same_job(store: Store) -> None:
    with jobs.run(store, "sync", dry_run=False):
        with pytest.raises(jobs.JobIsRunning), jobs.run(store, "sync", dry_run=False):
            pytest.fail("it runs twice")
        with jobs.run(store, "offboard", dry_run=False), jobs.run(store, "sync", dry_run=True):
            pass
    assert [run["status"] for run in runs.recent(store, None, 9)] == ["succeeded"] * 3


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (PluginError("LiteLLM did not answer"), "failed", "LiteLLM did not answer"),
        (ValueError("jane@example.com"), "failed", "ValueError"),
        (KeyboardInterrupt(), "killed", "KeyboardInterrupt"),
    ],
)
def test_a_run_that_ends_early_says_why(
    store: Store, error: BaseException, status: str, told: str
) -> None:
    for dry_run in (False, True):
        with pytest.raises(type(error)), jobs.run(store, "sync", dry_run=dry_run):
            raise error
        found = last(store)
        assert (found["dry_run"], found["status"], found["error"]) == (dry_run, status, told)
        assert found["ended_at"] is not None


def test_a_dry_run_needs_no_store_that_can_be_written_to(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr("litellm_plugin.store.runs.add", fail)
    with jobs.run(store, "sync", dry_run=True):
        pass
    assert runs.recent(store, None, 9) == []


def test_old_runs_are_deleted_but_not_the_last_that_succeeded(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT", 3)
    with jobs.run(store, "sync", dry_run=False):
        pass
    first = last(store)
    for _ in range(runs.KEPT + 5):
        runs.begin(store, "sync", "2026-11-30T12:00:00.000Z")
    with jobs.run(store, "offboard", dry_run=False):
        pass
    runs.prune(store, "sync")
    found = runs.recent(store, "sync", 1000)
    assert len(found) == runs.KEPT + 1
    assert found[-1] == first


def test_the_metrics_tell_when_a_job_succeeded_and_failed_last(store: Store) -> None:
    def value(name: str) -> float | None:
        return REGISTRY.get_sample_value(
            f"litellm_plugin_job_last_{name}_timestamp_seconds", {"name": "metered"}
        )

    def at(second: int) -> datetime:
        return datetime.fromtimestamp(second, UTC)

    with jobs.run(store, "metered", dry_run=False, now=lambda: at(1000)):
        pass
    with jobs.run(store, "metered", dry_run=True, now=lambda: at(2000)):
        pass
    with jobs.run(store, "metered", dry_run=False, now=lambda: at(2500)) as run:
        run.partial = True
    assert runs.publish(store)
    assert (value("success"), value("failure")) == (1000, None)
    with (
        pytest.raises(PluginError),
        jobs.run(store, "metered", dry_run=False, now=lambda: at(3000)),
    ):
        raise PluginError("LiteLLM did not answer")
    assert runs.publish(store)
    assert (value("success"), value("failure")) == (1000, 3000)


def test_the_last_success_is_that_of_a_whole_run(store: Store) -> None:
    assert runs.last_counts(store, "offboard") == {}
    for people, job, dry_run, partial in (
        (7, "offboard", False, False),
        (8, "offboard", True, False),
        (9, "offboard", False, True),
        (10, "sync", False, False),
    ):
        with jobs.run(store, job, dry_run=dry_run) as run:
            run.counts["people"], run.partial = people, partial
    with pytest.raises(ZeroDivisionError), jobs.run(store, "offboard", dry_run=False) as run:
        run.counts["people"] = 1 // 0
    assert runs.last_counts(store, "offboard") == {"people": 7}


def test_a_store_that_is_away_has_no_metrics(tmp_path: Path) -> None:
    assert not runs.publish(Store(Database(file=tmp_path)))


def test_calls_are_let_through_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now, checks = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("litellm_plugin.jobs.time.monotonic", lambda: now)
    monkeypatch.setattr("litellm_plugin.jobs.time.sleep", sleep)
    pace = jobs.Pace(10, lambda: checks.append(now))
    for _ in range(21):
        pace.wait()
    assert now == pytest.approx(102.0)
    assert len(checks) in {2, 3}, "once a second"


KILLED = """
import sys
from pathlib import Path
from litellm_plugin import jobs
from litellm_plugin.config.database import Database
from litellm_plugin.store.database import Store
with jobs.run(Store(Database(file=Path(sys.argv[1]))), "sync", dry_run=False):
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.deep
def test_a_run_that_is_killed_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        store = Store(Database(file=file))
        with pytest.raises(jobs.JobIsRunning), jobs.run(store, "sync", dry_run=False):
            pass
        os.kill(process.pid, signal.SIGKILL)
    with jobs.run(store, "sync", dry_run=False):
        assert [row["status"] for row in runs.recent(store, "sync", 9)] == ["running", "killed"]
    store.close()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_run_that_left_something_undone_has_failed(store: Store, dry_run: bool) -> None:
    with jobs.run(store, "sync", dry_run=dry_run) as run:
        run.problem = "some accounts were not changed"
    found = last(store)
    assert (found["status"], found["error"]) == ("failed", "some accounts were not changed")
