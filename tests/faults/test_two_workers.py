"""Two workers of one gunicorn, and two writes at once on one team or one key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.launch import Sandbox, running
from tests import pairs
from tests.faults.replica import CONFIG, NOWHERE, SERVICE_TOKEN, Replica
from tests.pairs import Write

pytestmark = pytest.mark.faults

MORE = {
    "litellm": {
        "teamAdmin": {"allowedMcpServers": [pairs.SERVER]},
        "service": {"rateLimits": False, "backstageToken": SERVICE_TOKEN},
    }
}
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
def sandbox(folder: Path) -> Iterator[Sandbox]:
    config = folder / "more.yaml"
    config.write_text(json.dumps(MORE))
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
def service(folder: Path, sandbox: Sandbox, meeting: Meeting) -> Iterator[Replica]:
    with Replica(folder / "service", sandbox, MORE) as service:
        service.wait()
        yield service


@pytest.mark.parametrize("pair", pairs.PAIRS, ids=lambda pair: f"{pair[0]}+{pair[1]}")
def test_of_two_writes_at_once_none_is_lost(
    pair: tuple[Write, Write], service: Replica, sandbox: Sandbox, meeting: Meeting
) -> None:
    target = pairs.target(sandbox.litellm, pair[0], people.ADMINS)
    meeting.barrier.reset()

    def one(write: Write) -> int:
        path = target.path + write.path
        return service.send(people.ALICE, write.method, path, write.body).status_code

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(one, pair)
    assert list(pairs.faults(pair, (first, second), target.now())) == []
