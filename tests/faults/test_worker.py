"""gunicorn as ``gunicorn_conf.py`` sets it up: how its workers end, and what they are."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.deployed import REPO, free_port, gunicorn, wait_for

pytestmark = pytest.mark.faults

SETTINGS = REPO / "litellm_plugin" / "gunicorn_conf.py"

ENOUGH = 60.0  # seconds for whatever is to happen soon; ``keepalive`` is 75

# A request to /held says that it has begun, and ends when it is let go.
APP = """\
import gc
import os
import time
from pathlib import Path
from flask import Flask

app = Flask(__name__)

@app.get("/")
def at_once():
    return "at once"

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.get("/left")
def left():
    return str(sum(type(one).__module__ == "gunicorn.http.message" for one in gc.get_objects()))

@app.get("/held")
def held():
    Path("begun").touch()
    while not Path("let-go").exists():
        time.sleep(0.02)
    return "held"
"""


class Server:
    """A gunicorn."""

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "held.py").write_text(APP)
        environ = {
            **os.environ,
            "LITELLM_PLUGIN_BIND": f"127.0.0.1:{self.port}",
            "WEB_CONCURRENCY": str(workers),
            "HOME": str(folder),
            "PYTHONPATH": str(REPO),
        }
        arguments = ["-c", str(SETTINGS), "held:app"]
        self.process = gunicorn(environ, folder / "log", *arguments, folder=folder)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, path: str) -> str:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=ENOUGH)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def answers(self) -> bool:
        try:
            return self.ask("/") == "at once"
        except OSError:
            return False


@contextmanager
def serving(folder: Path, workers: int = 1) -> Iterator[Server]:
    server = Server(folder, workers)
    try:
        wait_for(server.answers)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def test_it_ends_with_its_requests_and_not_with_idle_connections(server: Server) -> None:
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=ENOUGH)
    idle.sendall(b"GET / HTTP/1.1\r\nHost: it\r\n\r\n")
    received = b""
    while not received.endswith(b"at once"):
        received += idle.recv(1000)
    answers: list[str] = []
    asking = Thread(target=lambda: answers.append(server.ask("/held")))
    asking.start()
    wait_for((server.folder / "begun").exists)

    server.process.send_signal(signal.SIGTERM)

    # The idle connection is closed while the request goes on.
    with idle:
        assert idle.recv(1) == b""
    assert answers == []
    (server.folder / "let-go").touch()
    asking.join(ENOUGH)
    assert answers == ["held"]
    assert server.process.wait(ENOUGH) == 0
    assert "Traceback" not in server.log


def test_reloading_loses_no_request(server: Server) -> None:
    """Also not on connections that are kept, nor one that takes longer than the reload."""
    over, lost, answered = Event(), [], []

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=ENOUGH)
        last = time.monotonic()
        while not over.is_set():
            try:
                rested = time.monotonic() - last
                connection.request("GET", "/pid")
                answered.append(connection.getresponse().read().decode())
            except (OSError, HTTPException) as exc:
                connection.close()
                if rested < 1.0:  # else it was closed as an idle one
                    lost.append(repr(exc))
            last = time.monotonic()
        connection.close()

    held: list[str] = []
    slow = Thread(target=lambda: held.append(server.ask("/held")))
    slow.start()
    wait_for((server.folder / "begun").exists)
    clients = [Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    wait_for(lambda: len(set(answered)) == 1)
    (old,) = set(answered)

    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: len(set(answered)) == 2)
    wait_for(lambda: old not in answered[-20:])
    # The old worker serves nobody but the slow request, which it finishes.
    assert Path("/proc", old).exists()
    assert held == []
    (server.folder / "let-go").touch()
    slow.join(ENOUGH)
    wait_for(lambda: not Path("/proc", old).exists())
    over.set()
    for client in clients:
        client.join(ENOUGH)

    assert held == ["held"]
    assert lost == []


def test_an_answer_in_the_end_says_that_the_connection_ends_too(server: Server) -> None:
    said: list[str | None] = []

    def ask() -> None:
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=ENOUGH)) as connection:
            connection.request("GET", "/held")
            response = connection.getresponse()
            said.extend([response.read().decode(), response.getheader("Connection")])

    asking = Thread(target=ask)
    asking.start()
    wait_for((server.folder / "begun").exists)
    server.process.send_signal(signal.SIGTERM)
    wait_for(lambda: not server.answers())
    (server.folder / "let-go").touch()
    asking.join(ENOUGH)

    assert said == ["held", "close"]
    assert server.process.wait(ENOUGH) == 0


def test_an_answered_request_is_gone_before_the_garbage_collector_comes(server: Server) -> None:
    for _ in range(20):
        server.ask("/")

    assert int(server.ask("/left")) <= 2  # itself, and one whose connection is just closing


def test_connections_that_stay_open_are_spread_over_the_workers(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server, ExitStack() as stack:
        wait_for(lambda: len({server.ask("/pid") for _ in range(10)}) == 2)
        served: Counter[bytes] = Counter()
        for _ in range(40):  # one after another, so that both are idle when it comes
            connection = HTTPConnection("127.0.0.1", server.port, timeout=ENOUGH)
            stack.callback(connection.close)
            connection.request("GET", "/pid")
            served[connection.getresponse().read()] += 1

    assert min(served.values()) >= 10, served


def test_without_gevent_threads_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gevent", None)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    settings = runpy.run_path(str(SETTINGS))

    assert (settings["worker_class"], settings["threads"]) == ("gthread", 16)
