"""Two workers of one gunicorn, and two writes at once on one team or one key."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

import litellm_plugin.sandbox
from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.launch import Sandbox, running
from tests import pairs
from tests.deployed import end, free_port, gunicorn
from tests.pairs import Write

pytestmark = pytest.mark.faults

CONFIG = Path(litellm_plugin.sandbox.__file__).with_name("app-config.yaml")
NOWHERE = {"LITELLM_BASE_URL": "http://127.0.0.1:0", "BACKSTAGE_URL": "http://127.0.0.1:0"}
MORE = {
    "litellm": {
        "teamAdmin": {"allowedMcpServers": [pairs.SERVER]},
        "service": {"rateLimits": False, "backstageToken": "static-token-for-the-catalog"},
    }
}
PATIENCE = 60.0  # seconds
MEETING = 0.2  # seconds that a write waits for the other one, which a lock may hold back

Wsgi = Callable[..., Iterable[bytes]]


class Meeting:
    """Lets the first write of two requests wait for the other's."""

    def __init__(self, inside: Wsgi) -> None:
        self._inside = inside
        self.barrier = threading.Barrier(2, timeout=MEETING)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            with suppress(threading.BrokenBarrierError):
                self.barrier.wait()
        return self._inside(environ, start_response)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two-workers")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    config = folder / "more.yaml"
    config.write_text(json.dumps(MORE))
    return config


@pytest.fixture(scope="module")
def sandbox(config: Path) -> Iterator[Sandbox]:
    with running([CONFIG, config], NOWHERE, port=0) as sandbox:
        pairs.furnish(sandbox.litellm)
        yield sandbox


@pytest.fixture(scope="module")
def meeting(sandbox: Sandbox) -> Meeting:
    app = sandbox.litellm.app
    meeting = Meeting(app.wsgi_app)
    app.wsgi_app = meeting  # type: ignore[method-assign]
    return meeting


@pytest.fixture(scope="module")
def url(folder: Path, config: Path, sandbox: Sandbox, meeting: Meeting) -> Iterator[str]:
    """Where a gunicorn with two workers is mounted."""
    address = f"127.0.0.1:{free_port()}"
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "WEB_CONCURRENCY": "2",
        "LITELLM_PLUGIN_BIND": address,
        "LITELLM_PLUGIN_CONFIG": f"{CONFIG},{config}",
        "LITELLM_BASE_URL": sandbox.settings.base_url,
        "BACKSTAGE_URL": sandbox.settings.discovery.backstage_url,
    }
    process = gunicorn(environ, folder / "log")
    url = f"http://{address}/api/litellm"
    try:
        until = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < until, (folder / "log").read_text()
            try:
                ask(url, sandbox, "GET", "/health", None)
            except requests.ConnectionError:
                time.sleep(0.02)
            else:
                break
        yield url
    finally:
        end(process, PATIENCE)


def ask(url: str, sandbox: Sandbox, method: str, path: str, body: Any) -> int:
    """Return the status of what Alice asks, over a connection of its own: to either worker."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method,
            url + path,
            json=body,
            headers={"Authorization": f"Bearer {sandbox.tokens[people.ALICE]}"},
            timeout=PATIENCE,
        ).status_code


@pytest.mark.parametrize("pair", pairs.PAIRS, ids=lambda pair: f"{pair[0]}+{pair[1]}")
def test_of_two_writes_at_once_none_is_lost(
    pair: tuple[Write, Write], url: str, sandbox: Sandbox, meeting: Meeting
) -> None:
    target = pairs.target(sandbox.litellm, pair[0], people.ADMINS)
    meeting.barrier.reset()

    def one(write: Write) -> int:
        return ask(url, sandbox, write.method, target.path + write.path, write.body)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, pair)
    assert list(pairs.faults(pair, (first, second), target.now())) == []
