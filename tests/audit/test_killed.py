"""gunicorn's workers, killed and ended, with their events in SQLite and PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import requests

from litellm_plugin.cli.audit import _verified
from litellm_plugin.config.database import Database
from litellm_plugin.store.audit import AuditEvents, Filter
from litellm_plugin.store.database import Store
from tests.deployed import REPO, end, free_port, gunicorn
from tests.postgres import Postgres

pytestmark = pytest.mark.deep

PATIENCE = 60.0  # seconds
ALL = Filter(denied=True)


@pytest.fixture(params=["pg", "better-sqlite3"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "better-sqlite3":
        return Database(file=tmp_path / "store.db")
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.database()


def _until(true: Callable[[], Any]) -> None:
    end_ = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end_
        time.sleep(0.05)


class Served:
    """A gunicorn with one worker."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "log"
        wanted = {name: value for name, value in asdict(database).items() if value is not None}
        environ = {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "AUDIT_DATABASE": json.dumps(wanted, default=str),
            "AUDIT_KEY_FILE": str(folder / "key.json"),
            "WEB_CONCURRENCY": "1",
            "LITELLM_PLUGIN_BIND": f"127.0.0.1:{self.port}",
        }
        config = ("--config", "python:litellm_plugin.gunicorn_conf")
        self.process: subprocess.Popen[bytes] = gunicorn(
            environ, self.log, *config, "tests.audit.served:app()"
        )
        _until(self._is_up)

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(f"http://127.0.0.1:{self.port}/livez", timeout=5).ok
        except requests.ConnectionError:
            return False

    def refused(self, number: int) -> None:
        """Send requests that make an audit event each: nobody is signed in."""
        url = f"http://127.0.0.1:{self.port}/api/litellm/keys/generate"
        for _ in range(number):
            assert requests.post(url, json={"alias": "ci"}, timeout=30).status_code == 401

    def worker(self) -> int:
        """Return the worker's process id."""
        file = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(file.read_text().split()[0])

    def logged(self) -> int:
        """Return the number of audit events in the log."""
        return self.log.read_text().count('"isAuditEvent"')


def test_a_killed_worker_loses_only_what_the_log_has(database: Database, tmp_path: Path) -> None:
    served = Served(database, tmp_path)
    store = Store(database)
    events = AuditEvents(store)
    try:
        served.refused(30)
        _until(lambda: sum(events.days(ALL).values()) > 0)
        served.refused(30)
        os.kill(served.worker(), signal.SIGKILL)
        before = sum(events.days(ALL).values())
        assert 0 < before <= 60
        _until(served._is_up)
        served.refused(10)
        assert served.logged() == 70
    finally:
        end(served.process, PATIENCE)
    assert sum(events.days(ALL).values()) == before + 10
    killed, ended = events.heads()
    assert (killed.ended_at, killed.last_sequence) == (None, before)
    assert (ended.ended_at is not None, ended.last_sequence) == (True, 10)
    verdict = _verified(events)
    assert verdict.faults == []
    assert f"events after {before} may be in the log only" in verdict.notes[0]
    store.close()
