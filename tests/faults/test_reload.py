"""A gunicorn that is told to read its configuration again, or to start anew beside itself."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from litellm_plugin.identity.jwt import parse
from tests.deployed import REPO, end, free_port, gunicorn, wait_for
from tests.faults.proxy import Exchange
from tests.faults.replica import BY_EACH_WORKER
from tests.faults.rig import UNHURRIED, Route, running
from tests.identity.doubles import pem_files
from tests.tokens import SigningKey

pytestmark = pytest.mark.faults

ENOUGH = 90.0  # seconds for whatever is to happen soon

CONFIG = """\
backend: {{baseUrl: http://127.0.0.1:9}}
litellm:
  baseUrl: http://127.0.0.1:9
  masterKey: sk-master
  service:
    keyFile: {folder}/key.json
    metrics: {{bind: 127.0.0.1:{metrics}}}
  bridge: {{enabled: true, issuer: http://127.0.0.1:9/realms/main, clientId: {client}}}
"""


class Server:
    """A gunicorn; its configuration names a client, which it tells everybody."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder, self.port, self.metrics_port = folder, free_port(), free_port()
        self.configure("first")
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(REPO),
            "TMPDIR": str(folder),
            "LITELLM_PLUGIN_BIND": f"127.0.0.1:{self.port}",
            "LITELLM_PLUGIN_CONFIG": str(folder / "app-config.yaml"),
            "WEB_CONCURRENCY": "2",
        }
        arguments = ("--pid", str(folder / "pid"), *arguments)
        self.process = gunicorn(environ, folder / "log", *arguments, script=True)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def configure(self, client: str) -> None:
        values = {"folder": self.folder, "metrics": self.metrics_port, "client": client}
        (self.folder / "app-config.yaml").write_text(CONFIG.format(**values))

    def client(self) -> str:
        """Return which client it was configured with; nothing where it does not answer."""
        with suppress(requests.RequestException):
            url = f"http://127.0.0.1:{self.port}/api/litellm/bridge/health"
            return str(requests.get(url, timeout=ENOUGH).json()["clientId"])
        return ""

    def requests_counted(self) -> float:
        """Return how many requests the metrics tell of; -1 where nobody tells."""
        with suppress(requests.RequestException):
            told = requests.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=ENOUGH)
            name = "litellm_plugin_request_duration_seconds_count"
            lines = [line for line in told.text.splitlines() if line.startswith(name)]
            return sum(float(line.rpartition(" ")[2]) for line in lines)
        return -1


def served_by_each_worker(server: Server, client: str) -> bool:
    """Tell whether both workers have this configuration, and none before them serves any more."""
    return {server.client() for _ in range(BY_EACH_WORKER)} == {client}


@pytest.fixture(params=["app:app", "litellm_plugin.wsgi:load()"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, request.param)
    try:
        wait_for(lambda: server.client() == "first")
        yield server
    finally:
        end(server.process, ENOUGH)


def test_hup_takes_the_new_configuration_or_keeps_the_old_one_and_says_why(server: Server) -> None:
    server.configure("second")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: served_by_each_worker(server, "second"))

    server.configure("[faulty]")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "The configuration is kept as it was" in server.log)
    [faulty] = [line for line in server.log.splitlines() if "clientId: got" in line]
    assert json.loads(faulty)["message"] == (
        "The configuration is faulty: "
        "litellm.bridge.clientId: got list in app-config.yaml, wanted string"
    )
    [kept] = [line for line in server.log.splitlines() if "is kept as it was" in line]
    assert json.loads(kept)["level"] == "ERROR"
    assert served_by_each_worker(server, "second")

    server.configure("third")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.client() == "third")
    assert "Traceback" not in server.log


def test_usr2_starts_a_master_that_serves_the_metrics_when_the_one_before_has_ended(
    server: Server,
) -> None:
    server.process.send_signal(signal.SIGHUP)  # after which the environment is passed on
    wait_for(lambda: "The configuration was read again" in server.log)
    wait_for(lambda: server.requests_counted() > 0)
    counted = server.requests_counted()
    server.configure("second")
    server.process.send_signal(signal.SIGUSR2)
    pid_file = server.folder / "pid.2"
    wait_for(lambda: pid_file.exists() and server.client() == "second")
    after = int(pid_file.read_text())
    try:
        assert server.requests_counted() >= counted  # of the one before
        server.process.terminate()
        server.process.wait(ENOUGH)
        wait_for(lambda: server.requests_counted() > 0)
        counted = server.requests_counted()
        assert [server.client() for _ in range(5)] == ["second"] * 5
        wait_for(lambda: server.requests_counted() >= counted + 5)
        assert "Traceback" not in server.log
    finally:
        os.kill(after, signal.SIGTERM)
        wait_for(lambda: server.client() == "")


def test_hup_takes_a_new_signing_key_in_two_steps(tmp_path: Path) -> None:
    keys = {}
    for kid in ("old", "new"):
        pair = pem_files(tmp_path, SigningKey.ec(kid))
        keys[kid] = {
            "keyId": kid,
            "publicKeyFile": str(pair.public_key_file),
            "privateKeyFile": str(pair.private_key_file),
        }

    def line(*kids: str) -> str:
        store = {"type": "static", "static": {"keys": [keys[kid] for kid in kids]}}
        return f"  auth: {json.dumps({'pluginKeyStore': store})}"

    signed_by: list[str] = []

    def record(exchange: Exchange) -> None:
        if exchange.asked.target.startswith("/api/catalog"):
            token = parse(exchange.asked.headers["authorization"].removeprefix("Bearer "))
            signed_by.append(token.header["kid"])
        exchange.send(exchange.forward())

    with running(tmp_path / "rig", cache=line("old"), total=UNHURRIED) as rig:
        config = rig.folder / "app-config.yaml"
        rig.backstage.spoil(record)

        def published() -> list[str]:
            answer = requests.get(f"{rig.url}/.backstage/auth/v1/jwks.json", timeout=ENOUGH)
            return [key["kid"] for key in answer.json()["keys"]]

        def signer() -> str:
            """Return the key of a token that Backstage has accepted."""
            assert rig.ask(Route("GET", "/teams/managed")).status == 200
            return signed_by[-1]

        def reload(before: str, after: str) -> None:
            config.write_text(config.read_text().replace(before, after))
            rig.process.send_signal(signal.SIGHUP)

        assert (published(), signer()) == (["old"], "old")
        reload(line("old"), line("old", "new"))
        wait_for(lambda: published() == ["old", "new"])
        assert signer() == "old"
        reload(line("old", "new"), line("new", "old"))
        wait_for(lambda: signer() == "new")
        wait_for(lambda: published() == ["new", "old"])
        reload(line("new", "old"), line("new"))
        wait_for(lambda: published() == ["new"])
        assert signer() == "new"
