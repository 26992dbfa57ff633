"""What Prometheus reads of a deployment while an upstream fails, and when it is well again."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import requests

from litellm_plugin.clients.circuit_breaker import FAILURES
from tests.deployed import free_port
from tests.faults.rig import UNHURRIED, Rig, Route, running

pytestmark = pytest.mark.faults

KEYS = Route("GET", "/keys")


def test_prometheus_sees_that_litellm_is_left_alone_and_by_living_workers_only(
    tmp_path: Path,
) -> None:
    port = free_port()
    more = f"cacheSeconds: 0\n    metrics: {{bind: 127.0.0.1:{port}}}"
    with running(tmp_path / "rig", more=more, total=UNHURRIED) as rig:
        assert rig.ask(KEYS).status == 200
        _break(rig)
        assert rig.settled(lambda: _listens(port))
        assert _left_alone(port) == 1

        rig.litellm.listen()
        rig.recovery(KEYS)
        assert _left_alone(port) == 0
        told = _metrics(port)

        _break(rig)
        assert _left_alone(port) == 1
        os.kill(rig.worker, signal.SIGKILL)
        assert rig.settled(lambda: _left_alone(port) == 0)
        rig.litellm.listen()
        rig.recovery(KEYS)

    requested = 'method="GET",route="/api/litellm/keys",status="200"'
    assert any(
        line.startswith("litellm_plugin_request_duration_seconds_count") and requested in line
        for line in told
    )
    assert any(line.startswith("litellm_plugin_build_info{") for line in told)


def _break(rig: Rig) -> None:
    rig.litellm.refuse()
    for _ in range(FAILURES):
        assert rig.ask(KEYS).status >= 500


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _metrics(port: int) -> list[str]:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10)
    assert answer.status_code == 200
    return answer.text.splitlines()


def _left_alone(port: int) -> float:
    name = 'litellm_plugin_upstream_left_alone{upstream="litellm"} '
    # None, where no worker is there to tell.
    return sum(float(line.removeprefix(name)) for line in _metrics(port) if line.startswith(name))
