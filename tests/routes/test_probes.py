"""``/livez`` and ``/readyz`` over HTTP, below the mount and at the root of our own application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from litellm_plugin import create_app, create_blueprint
from litellm_plugin.config.settings import Cache, Settings
from litellm_plugin.observability import readiness
from tests.client import MOUNT, PluginClient, json_of
from tests.fakes import FakeBackstage, FakeLiteLLM, Network
from tests.fakes.litellm import BASE_URL

OK = {"status": "ok"}
UNREADY = "Not ready to serve requests"
LIVENESS, READINESS = "/.backstage/health/v1/liveness", "/.backstage/health/v1/readiness"


@pytest.fixture(autouse=True)
def _all_the_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "PATIENCE", 20.0)
    monkeypatch.setattr(readiness, "LASTS", 0.0)


@pytest.fixture
def root(client: PluginClient) -> PluginClient:
    return PluginClient(client.app, mount="")


def is_up(litellm: FakeLiteLLM, **answer: Any) -> None:
    litellm.get("/health/readiness", **{"json": {"status": "healthy", "db": "connected"}, **answer})


@pytest.mark.parametrize("path", ["/livez", MOUNT + "/livez", LIVENESS, "/livez/"])
def test_it_lives(root: PluginClient, litellm: FakeLiteLLM, network: Network, path: str) -> None:
    network.hosts.clear()
    answer = root.get(path)
    assert (answer.status_code, answer.json) == (200, OK)
    assert answer.headers["Cache-Control"] == "no-store"
    assert network.strays == []  # nobody was asked
    assert root.request("HEAD", path).data == b""


@pytest.mark.parametrize(
    ("answer", "checks"),
    [
        ({}, {"backstage": "ok", "litellm": "ok"}),
        ({"json": {"status": "healthy", "db": "Not connected"}}, {"litellm": "down"}),
        ({"json": {"detail": "no database"}, "status": 503}, {"litellm": "down"}),
        ({"json": {}, "status": 500}, {"litellm": "down"}),
        # It is there, and hides its health.
        ({"json": {}, "status": 404}, {"litellm": "ok"}),
        ({"json": {}, "status": 401}, {"litellm": "ok"}),
        ({"json": {}, "text": "I'm here"}, {"litellm": "ok"}),
        ({}, {"backstage": "down"}),
    ],
    ids=str,
)
def test_it_is_ready_while_both_upstreams_are_there(
    root: PluginClient,
    litellm: FakeLiteLLM,
    network: Network,
    backstage: FakeBackstage,
    answer: dict[str, Any],
    checks: dict[str, str],
) -> None:
    is_up(litellm, **answer)
    if checks.get("backstage") == "down":
        network.hosts.remove(backstage)
    checks = {"backstage": "ok", "litellm": "ok", **checks}
    down = "down" in checks.values()
    for path in ("/readyz", MOUNT + "/readyz"):
        told = root.get(path)
        assert told.status_code == (503 if down else 200)
        assert told.json == {"status": "error" if down else "ok", "checks": checks}
        assert told.headers["Cache-Control"] == "no-store"
    body = json_of(root.get(READINESS), 503 if down else 200)
    assert body == ({"message": UNREADY, "status": "error"} if down else OK)
    assert "Authorization" not in litellm.calls[0].headers


def test_an_outage_leaves_it_ready_unless_that_is_configured(
    settings: Settings,
    client_of: Callable[[Flask], PluginClient],
    litellm: FakeLiteLLM,
    network: Network,
) -> None:
    is_up(litellm)
    strict = replace(settings, service=replace(settings.service, strict_readiness=True))
    clients = [PluginClient(create_app(each), mount="") for each in (settings, strict)]
    assert [each.get("/readyz").status_code for each in clients] == [200, 200]
    network.hosts.clear()
    answers = [each.get("/readyz") for each in clients]
    assert [answer.status_code for answer in answers] == [200, 503]
    for answer in answers:
        assert answer.json is not None
        assert answer.json["checks"] == {"backstage": "down", "litellm": "down"}


def test_redis_is_told_of_and_not_needed(
    settings: Settings, litellm: FakeLiteLLM, network: Network
) -> None:
    is_up(litellm)
    nowhere = Cache("valkey", "redis://127.0.0.1:1/0")
    answer = PluginClient(create_app(replace(settings, cache=nowhere)), mount="").get("/readyz")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["checks"] == {"backstage": "ok", "litellm": "ok", "valkey": "down"}


def test_nothing_of_the_configuration_is_told(root: PluginClient, network: Network) -> None:
    network.hosts.clear()
    text = root.get("/readyz").text + str(root.get("/readyz").headers)
    assert BASE_URL not in text
    assert "7007" not in text


@pytest.mark.parametrize("path", ["/livez", "/readyz", LIVENESS, READINESS])
def test_they_are_only_read(root: PluginClient, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert root.request(method, path).status_code == 405


def test_a_host_application_has_them_below_the_mount_only(
    settings: Settings, network: Network
) -> None:
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(settings))
    client = PluginClient(app, mount="")
    assert client.get(f"{MOUNT}/livez").json == OK
    for path in ("/livez", "/readyz", LIVENESS, READINESS):
        assert client.get(path).status_code == 404
