"""What a proxy in front may pass on: requests that two servers take apart differently.

A real gunicorn, as ``gunicorn_conf.py`` sets it up, asked over bare sockets. Most of it is for
``make deep``.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.deployed import free_port

REPO = Path(__file__).parents[2]
TOKEN = "static-token-of-the-smuggler"
BODY_SECONDS = 0.5
ENOUGH = 60.0  # seconds for whatever is to happen soon; a busy machine takes its time

CONF = f"exec(open({str(REPO / 'gunicorn.conf.py')!r}).read())\n"
SETTINGS = {
    "gevent": f"{CONF}from litellm_plugin.server import worker\n"
    f"worker.BODY_SECONDS = {BODY_SECONDS}\n",
    "gthread": f"import sys\nsys.modules['gevent'] = None\n{CONF}",  # as without gevent
}

CONFIG = f"""\
backend:
  baseUrl: http://127.0.0.1:9
  auth:
    externalAccess:
      - {{type: static, options: {{token: {TOKEN}, subject: smuggler}}}}
litellm:
  baseUrl: http://127.0.0.1:9
  masterKey: sk-master
  service: {{keyFile: KEYFILE}}
"""

# The blueprint in an application with routes of its own.
MOUNTING = """\
from flask import Flask, request
from litellm_plugin import create_blueprint

app = Flask("theirs")
app.register_blueprint(create_blueprint())

@app.post("/unread")
def unread():
    return "without a look at the body"

@app.post("/read")
def read():
    return f"{len(request.get_data())} bytes"
"""

AUTH = f"Authorization: Bearer {TOKEN}\r\n"
HEALTH = f"GET /api/litellm/health HTTP/1.1\r\nHost: it\r\n{AUTH}"
POST = f"POST /api/litellm/keys/generate HTTP/1.1\r\nHost: it\r\n{AUTH}"
JSON = "Content-Type: application/json\r\n"
SMUGGLED = f"{HEALTH}\r\n"


class Server:
    """One worker; what it logs goes to a file."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.port = free_port()
        (folder / "settings.py").write_text(SETTINGS[kind])
        config = folder / "app-config.yaml"
        config.write_text(CONFIG.replace("KEYFILE", str(folder / "key.json")))
        self._log = folder / "log"
        (folder / "mounting.py").write_text(MOUNTING)
        environ = {
            "LITELLM_PLUGIN_BIND": f"127.0.0.1:{self.port}",
            "LITELLM_PLUGIN_CONFIG": str(config),
            "WEB_CONCURRENCY": "1",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "-c", str(folder / "settings.py")),
                    *("--pythonpath", str(folder), "mounting:app"),
                ],
                cwd=REPO,
                env=os.environ | environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text("latin-1")

    def answers(self) -> bool:
        try:
            return self.ask(SMUGGLED) == [200]
        except OSError:
            return False

    def exchange(self, sent: str | bytes) -> bytes:
        """Send all, end, and return all that comes back."""
        data = sent.encode("latin-1") if isinstance(sent, str) else sent
        with closing(socket.create_connection(("127.0.0.1", self.port), ENOUGH)) as connection:
            received = b""
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    received += chunk
            except TimeoutError:
                raise
            except OSError:
                pass  # it had seen enough
            return received

    def ask(self, sent: str | bytes) -> list[int]:
        """Return the status of every answer that comes back."""
        found = re.findall(rb"HTTP/1\.[01] (\d{3})", self.exchange(sent))
        return [int(status) for status in found if status != b"100"]


@pytest.fixture(scope="module", params=["gevent", "gthread"])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server of either kind of worker."""
    with _serving(tmp_path_factory.mktemp("server"), request.param) as server:
        yield server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with _serving(tmp_path_factory.mktemp("server"), "gevent") as server:
        yield server


@contextlib.contextmanager
def _serving(folder: Path, kind: str) -> Iterator[Server]:
    server = Server(folder, kind)
    try:
        deadline = time.monotonic() + ENOUGH
        while not server.answers():
            assert time.monotonic() < deadline, server.log
            assert server.process.poll() is None, server.log
            time.sleep(0.05)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def _body(text: str, *headers: str) -> str:
    return POST + JSON + "".join(f"{header}\r\n" for header in headers) + "\r\n" + text


CHUNKED = "Transfer-Encoding: chunked"
HIDDEN = f"0\r\n\r\n{SMUGGLED}"

SMUGGLING = {
    "two lengths": _body(SMUGGLED, "Content-Length: 0", f"Content-Length: {len(SMUGGLED)}"),
    "one length twice": _body("{}", "Content-Length: 2", "Content-Length: 2"),
    "a list of lengths": _body("{}", "Content-Length: 2, 2"),
    "a length with a plus": _body("{}", "Content-Length: +2"),
    "a negative length": _body(SMUGGLED, "Content-Length: -1"),
    "a hexadecimal length": _body("{}", "Content-Length: 0x2"),
    "a length with an underscore": _body("{}", "Content-Length: 0_2"),
    "an empty length": _body("{}", "Content-Length:"),
    "a length in other digits": _body("{}", "Content-Length: \xb2"),
    "length and chunks": _body(HIDDEN, f"Content-Length: {len(HIDDEN)}", CHUNKED),
    "chunks and length": _body(HIDDEN, CHUNKED, "Content-Length: 3"),
    "chunks twice": _body(HIDDEN, CHUNKED, CHUNKED),
    "chunks and identity": _body(HIDDEN, "Transfer-Encoding: chunked, identity"),
    "chunks by another name": _body(HIDDEN, "Transfer-Encoding: xchunked"),
    "chunks in quotes": _body(HIDDEN, 'Transfer-Encoding: "chunked"'),
    "chunks behind a space": _body(HIDDEN, "Transfer-Encoding : chunked"),
    "chunks behind a vertical tab": _body(HIDDEN, "Transfer-Encoding: \x0bchunked"),
    "chunks in a folded line": _body(HIDDEN, "X: y\r\n Transfer-Encoding: chunked"),
    "chunks in HTTP/1.0": _body(HIDDEN, CHUNKED).replace("HTTP/1.1", "HTTP/1.0", 1),
    "a line feed alone": _body(SMUGGLED, "X: y\nContent-Length: 0"),
    "a carriage return alone": _body(SMUGGLED, "X: y\rContent-Length: 0"),
    "a NUL": _body("{}", "X: a\0b", "Content-Length: 2"),
    "a header without a name": _body("{}", ": x", "Content-Length: 2"),
    "a header without a colon": _body("{}", "Content-Length 2"),
    "two hosts": _body("{}", "Host: evil", "Content-Length: 2"),
    "two types": _body("{}", "Content-Type: text/plain", "Content-Length: 2"),
    "a chunk with a sign": _body("+2\r\n{}\r\n0\r\n\r\n", CHUNKED),
    "a hexadecimal chunk": _body("0x2\r\n{}\r\n0\r\n\r\n", CHUNKED),
    "a chunk that is longer than it says": _body(f"2\r\n{{}}{SMUGGLED}\r\n0\r\n\r\n", CHUNKED),
    "a chunk with a line feed alone": _body("2\n{}\n0\n\n", CHUNKED),
    "an endless chunk size": _body("0" * 20_000 + "2\r\n{}\r\n0\r\n\r\n", CHUNKED),
    "an enormous chunk": _body("F" * 32 + "\r\n{}\r\n0\r\n\r\n", CHUNKED),
    "no version": f"GET /api/litellm/health\r\n{AUTH}\r\n",
    "another version": HEALTH.replace("HTTP/1.1", "HTTP/1.9") + "\r\n",
    "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in small letters": HEALTH.replace("GET", "get") + "\r\n",
    "a tab in the request line": HEALTH.replace(" HTTP", "\tHTTP") + "\r\n",
    "a space in the target": HEALTH.replace("health", "health x") + "\r\n",
    "a NUL in the target": HEALTH.replace("health", "health\0") + "\r\n",
    "raw bytes in the target": HEALTH.replace("health", "h\xe9alth") + "\r\n",
    "a long target": HEALTH.replace("health", "health?" + "a" * 8200) + "\r\n",
    "many headers": HEALTH + "X: y\r\n" * 200 + "\r\n",
    "a huge header": HEALTH + f"X: {'y' * 70_000}\r\n\r\n",
    "many huge headers": HEALTH + f"X: {'y' * 8000}\r\n" * 300 + "\r\n",
}


BAD_CHUNKS = {
    "a sign": "+2\r\n{}\r\n0\r\n\r\n",
    "a prefix": "0x2\r\n{}\r\n0\r\n\r\n",
    "no size": "\r\n{}\r\n0\r\n\r\n",
    "another size": "zz\r\n{}\r\n0\r\n\r\n",
    "a minus": "-2\r\n{}\r\n0\r\n\r\n",
    "more than it says": "2\r\n{}{}\r\n0\r\n\r\n",
    "a line feed alone": "2\n{}\n0\n\n",
    "a bad extension": '2;x="\r\n{}\r\n0\r\n\r\n',
    "a bad trailer": "2\r\n{}\r\n0\r\nno header\r\n\r\n",
    "no end": "2\r\n{}\r\n",
}
UNREAD = {
    "chunks": f"{CHUNKED}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
    "a length": f"Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
    "half of a length": f"Content-Length: 80000\r\n\r\n{' ' * 40_000}",
    **{name: f"{CHUNKED}\r\n\r\n{chunks}" for name, chunks in BAD_CHUNKS.items()},
}
OUTCOMES = {
    "served": HEALTH,
    "without its body": HEALTH.replace("GET", "HEAD"),
    "refused before it is read": POST.replace(AUTH, "") + JSON,
    "not found": HEALTH.replace("/health", "/nope"),
    "not served": HEALTH.replace("GET", "TRACE"),
    "of another type": POST + "Content-Type: text/plain\r\n",
    "another application's": "POST /unread HTTP/1.1\r\nHost: it\r\n",
}


@pytest.mark.deep
@pytest.mark.parametrize("body", UNREAD)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_body_that_was_not_read_ends_the_connection(
    either: Server, outcome: str, body: str
) -> None:
    received = either.exchange(OUTCOMES[outcome] + UNREAD[body] + SMUGGLED)
    assert received.count(b"HTTP/1.1 ") == 1, received
    assert b"\r\nConnection: close\r\n" in received


@pytest.mark.deep
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_answer_to_a_large_body_that_was_not_read_arrives(server: Server, outcome: str) -> None:
    """Ending the connection before the client has sent all would throw the answer away."""
    body = f"Content-Length: 900000\r\n\r\n{' ' * 900_000}"
    assert len(server.ask(OUTCOMES[outcome] + body)) == 1


@pytest.mark.deep
@pytest.mark.parametrize("body", BAD_CHUNKS)
@pytest.mark.parametrize("path", ["/api/litellm/keys/generate", "/read"])
def test_a_body_that_could_not_be_read_ends_the_connection(
    either: Server, path: str, body: str
) -> None:
    asked = POST.replace("/api/litellm/keys/generate", path) + JSON + f"{CHUNKED}\r\n\r\n"
    received = either.exchange(asked + BAD_CHUNKS[body] + SMUGGLED)
    assert received.count(b"HTTP/1.1 ") == 1, received
    assert b" 200 OK" not in received
    assert b"\r\nConnection: close\r\n" in received


@pytest.mark.deep
@pytest.mark.parametrize(
    "body",
    [
        "Content-Length: 2\r\n\r\n{}",
        f"{CHUNKED}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        f"{CHUNKED}\r\n\r\n2;a=b\r\n{{}}\r\n0\r\nX: y\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
        "\r\n",
    ],
)
def test_a_body_that_was_read_leaves_the_connection_open(either: Server, body: str) -> None:
    for asked in (POST + JSON, "POST /read HTTP/1.1\r\nHost: it\r\n"):
        statuses = either.ask(asked + body + SMUGGLED)
        assert len(statuses) == 2
        assert statuses[1] == 200


@pytest.mark.deep
@pytest.mark.parametrize("attack", SMUGGLING)
def test_what_can_be_taken_apart_in_two_ways_is_refused(server: Server, attack: str) -> None:
    statuses = server.ask(SMUGGLING[attack])
    assert len(statuses) <= 1, statuses
    assert all(400 <= status < 500 or status in {501, 505} for status in statuses), statuses


STATUSES = {
    "a plain request": (HEALTH + "\r\n", [200]),
    "two in a row": (SMUGGLED * 2, [200, 200]),
    "another host in the target": (
        HEALTH.replace("/api", "http://evil.example/api") + "\r\n",
        [200],
    ),
    "a body that looks like a request": (
        HEALTH + f"Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
        [200],
    ),
    "a body of a refused request": (
        POST.replace(AUTH, "") + JSON + f"Content-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}",
        [401],
    ),
    "an odd chunk extension": (_body('2;x="a\\"b"\r\n{}\r\n0\r\n\r\n', CHUNKED), [400]),
    "a forbidden trailer": (_body(f"2\r\n{{}}\r\n0\r\n{AUTH}\r\n", CHUNKED), [400]),
    "two tokens": (HEALTH + AUTH + "\r\n", [401]),
    "a good token and a bad one": (HEALTH + "Authorization: Bearer x\r\n\r\n", [401]),
    "a bad token and a good one": (
        HEALTH.replace(AUTH, "Authorization: Bearer x\r\n") + AUTH + "\r\n",
        [401],
    ),
    "a token under a name that looks the same": (
        HEALTH.replace(AUTH, AUTH.replace("Authorization", "Authorization_")) + "\r\n",
        [401],
    ),
    "a token from a proxy that is none": (
        HEALTH.replace(AUTH, AUTH.replace("Authorization", "Proxy-Authorization")) + "\r\n",
        [401],
    ),
    "a token in a folded line": (HEALTH.replace("Bearer ", "Bearer\r\n ") + "\r\n", [400]),
    "a mount of the client's": (
        HEALTH.replace("/api", "/x/api") + "SCRIPT_NAME: /x\r\n\r\n",
        [404],
    ),
    "a path of the client's": (
        HEALTH.replace("/health", "/nope") + "PATH_INFO: /api/litellm/health\r\n\r\n",
        [404],
    ),
    "an address of the client's": (
        HEALTH + "X-Forwarded-For: 127.0.0.1\r\nX_Forwarded_For: 10.0.0.1\r\n\r\n",
        [200],
    ),
    "a token of 16 KB": (HEALTH.replace(TOKEN, "x" * 16_000) + "\r\n", [401]),
    "a request of HTTP/1.0": (HEALTH.replace("HTTP/1.1", "HTTP/1.0") + "\r\n", [200]),
    "tracing": (HEALTH.replace("GET", "TRACE") + "\r\n", [405]),
    "a tunnel": ("CONNECT evil.example:443 HTTP/1.1\r\nHost: it\r\n\r\n", [404]),
    "another protocol": (
        HEALTH
        + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        [200],
    ),
    "an unknown expectation": (HEALTH + "Expect: a-miracle\r\n\r\n", [417]),
}


@pytest.mark.parametrize("request_", STATUSES)
def test_a_request_is_one_and_means_what_it_says(server: Server, request_: str) -> None:
    sent, statuses = STATUSES[request_]
    assert server.ask(sent) == statuses


@pytest.mark.deep
def test_a_body_that_comes_slowly_is_not_waited_for(server: Server) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), ENOUGH)) as connection:
        connection.sendall(_body('{"alias":', "Content-Length: 1000").encode())
        started = time.monotonic()
        received = b""
        with contextlib.suppress(ConnectionError):  # once it has been answered
            while chunk := connection.recv(65536):
                received += chunk
                connection.sendall(b" ")  # it goes on, and on
        assert b" 408 " in received.partition(b"\r\n")[0]
        assert time.monotonic() - started < ENOUGH / 2
    assert server.answers()


@pytest.mark.deep
def test_those_who_wait_keep_nobody_out(server: Server) -> None:
    """Connections that send nothing, half a header, and half a body."""
    halves = [b"", HEALTH.encode(), _body("{", "Content-Length: 9").encode()] * 40
    with contextlib.ExitStack() as stack:
        for half in halves:
            connection = socket.create_connection(("127.0.0.1", server.port), ENOUGH)
            stack.enter_context(closing(connection))
            connection.sendall(half)
        assert server.answers()


@pytest.mark.deep
def test_nothing_of_all_that_is_in_the_log_as_it_came(server: Server) -> None:
    forged = "\x1b[2JFORGED"
    for sent in (
        f"GET /api/litellm/{forged} HTTP/1.1\r\nHost: it\r\n\r\n",
        f"{forged} / HTTP/1.1\r\nHost: it\r\n\r\n",
        HEALTH + f"{forged}: x\r\n\r\n",
        HEALTH + f"X: {forged}\r\n\r\n",
        f"GET /api/litellm/health%0aFORGED HTTP/1.1\r\nHost: it\r\n{AUTH}\r\n",
    ):
        server.exchange(sent)
    assert "\x1b" not in server.log
    assert not [line for line in server.log.splitlines() if line.startswith("FORGED")]
    assert "Traceback" not in server.log
    assert TOKEN not in server.log
    assert server.process.poll() is None
