"""PostgreSQL goes away under requests, and comes back: no request fails, and the gap is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.deployed import free_port
from tests.faults.rig import UNHURRIED, Answer, Rig, Route, running
from tests.postgres import OWNER, PASSWORD, Postgres, postgres

__all__ = ["postgres"]

pytestmark = pytest.mark.faults

WRITES = 60  # few_events.py keeps the events of 20 in memory
AUDIT = Route("GET", "/audit?include=denied&page_size=100")


def test_no_request_fails_while_the_store_is_away(tmp_path: Path, postgres: Postgres) -> None:
    port = free_port()
    at = {"host": "127.0.0.1", "port": postgres.port, "user": OWNER, "password": PASSWORD}
    sync = {"enabled": True, "mode": "apply", "visitInterval": "1s"}
    over = {
        "backend": {"database": {"client": "pg", "connection": at}},
        "litellm": {"audit": {"store": True}, "provisioning": {"sync": sync}},
    }
    with running(
        tmp_path / "rig",
        more=f"cacheSeconds: 0\n    metrics: {{bind: 127.0.0.1:{port}}}",
        over=over,
        served="tests.faults.few_events:app",
        total=UNHURRIED,
    ) as rig:
        before = _asked(rig)
        assert rig.settled(lambda: "created" in _actions(rig))

        # All the time, while the server goes away and comes back.
        done, under_way = threading.Event(), list[Answer]()
        asking = threading.Thread(target=_ask_on, args=(rig, done, under_way))
        asking.start()
        try:
            postgres.stop()
            try:
                while_away = [_asked(rig) for _ in range(2)]
                for _ in range(WRITES):
                    assert rig.ask(Route("POST", f"/keys/{rig.key}/block", {})).status == 200
                assert json.loads(rig.ask(AUDIT).text)["missing"]
            finally:
                postgres.start()
            assert rig.settled(lambda: "lost" in _actions(rig), within=60)
        finally:
            done.set()
            asking.join()
        after = _asked(rig)
        (gap,) = (row for row in _audit(rig) if row["action"] == "lost")
        metrics = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text

    assert set(before.values()) == {200}
    assert [*while_away, after] == [before] * 3
    assert {answer.status for answer in under_way} == {200}
    (grant,) = postgres.execute("SELECT user_id, origin FROM grants", "backstage_plugin_litellm")
    assert grant == ("alice@example.com", "taken-in")
    lost = gap["updated_values"]["events"]
    assert 0 < lost < WRITES
    assert f'litellm_plugin_audit_events_total{{result="lost"}} {lost}.0' in metrics
    assert rig.log.count("audit events are stored again") == 1
    assert rig.log.count('"isAuditEvent"') >= WRITES


def _asked(rig: Rig) -> dict[str, int]:
    """Ask for each route at once; return the statuses."""
    return {str(answer.route): answer.status for answer in rig.ask_all(rig.routes)}


def _ask_on(rig: Rig, done: threading.Event, answers: list[Answer]) -> None:
    while not done.is_set():
        answers += [rig.ask(Route("GET", "/user/info")), rig.ask(Route("GET", "/audit"))]


def _audit(rig: Rig) -> list[dict[str, Any]]:
    return list(json.loads(rig.ask(AUDIT).text)["audit_logs"])


def _actions(rig: Rig) -> set[str]:
    return {row["action"] for row in _audit(rig)}
