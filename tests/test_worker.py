"""gunicorn as ``gunicorn_conf.py`` sets it up: how its workers end, and what they are."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread

import pytest

from tests.live.service import free_port

REPO = Path(__file__).parent.parent
SETTINGS = REPO / "litellm_plugin" / "gunicorn_conf.py"

ENOUGH = 20.0  # seconds for whatever is to happen soon; ``keepalive`` is 75

# A request to /held says that it has begun, and ends when it is let go.
APP = """\
import time
from pathlib import Path
from flask import Flask

app = Flask(__name__)

@app.get("/")
def at_once():
    return "at once"

@app.get("/held")
def held():
    Path("begun").touch()
    while not Path("let-go").exists():
        time.sleep(0.02)
    return "held"
"""


class Server:
    """A gunicorn with one worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "held.py").write_text(APP)
        settings = {"LITELLM_PLUGIN_BIND": f"127.0.0.1:{self.port}", "WEB_CONCURRENCY": "1"}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "-c", str(SETTINGS), "held:app"],
                cwd=folder,
                env={**os.environ, **settings, "HOME": str(folder), "PYTHONPATH": str(REPO)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

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


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    try:
        wait_for(server.answers)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def wait_for(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ENOUGH
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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


def test_without_gevent_threads_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gevent", None)

    settings = runpy.run_path(str(SETTINGS))

    assert (settings["worker_class"], settings["threads"]) == ("gthread", 16)
