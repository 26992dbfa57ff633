"""A proxy that stands between the service and an upstream, and spoils what goes through."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

DRIP = 0.05  # seconds between two bytes
FORWARDING = 60.0  # seconds that the server may take


class Gone(Exception):
    """The connection is over."""


@dataclass(frozen=True)
class Asked:
    """A request, as the service sent it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Exchange:
    """One request, and the ends of its connection.

    Args:
        client: The service's end.
        asked: What it sent.
        server: Port of the real server, on the loopback.
        over: Set when the proxy is to do something else.
    """

    def __init__(
        self, client: socket.socket, asked: Asked, server: int, over: threading.Event
    ) -> None:
        self.client = client
        self.asked = asked
        self._server = server
        self._over = over

    def forward(self) -> bytes:
        """Let the server act, and return its whole answer."""
        upstream = http.client.HTTPConnection("127.0.0.1", self._server, timeout=FORWARDING)
        dropped = {"connection", "host", "content-length", "accept-encoding"}
        headers = {name: value for name, value in self.asked.headers.items() if name not in dropped}
        try:
            upstream.request(self.asked.method, self.asked.target, self.asked.body or None, headers)
            answer = upstream.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            raise Gone from exc
        finally:
            upstream.close()
        kind = answer.getheader("Content-Type", "text/plain")
        return response(body, f"{answer.status} {answer.reason}", kind)

    def send(self, data: bytes) -> None:
        self.client.sendall(data)

    def stay_silent(self) -> None:
        """Say nothing until the service hangs up, or the proxy does something else."""
        self.client.settimeout(0.1)
        while not self._over.is_set():
            with suppress(TimeoutError):
                if not self.client.recv(1):
                    break
        raise Gone

    def drip(self, data: bytes) -> None:
        """Send a byte now and then."""
        for number in range(len(data)):
            self.send(data[number : number + 1])
            if self._over.wait(DRIP):
                raise Gone

    def reset(self) -> None:
        """Break the connection off, so that the service gets ECONNRESET."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone


def response(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    """Return an HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


Fault = Callable[[Exchange], None]


# -- faults ------------------------------------------------------------------


def none(exchange: Exchange) -> None:
    """Pass it on."""
    exchange.send(exchange.forward())


def hang_before(exchange: Exchange) -> None:
    """The request does not reach the server, and there is no answer."""
    exchange.stay_silent()


def hang_after(exchange: Exchange) -> None:
    """The server has acted, and there is no answer."""
    exchange.forward()
    exchange.stay_silent()


def hang_in_headers(exchange: Exchange) -> None:
    """The answer stops within its headers."""
    exchange.forward()
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: appl")
    exchange.stay_silent()


def hang_in_body(exchange: Exchange) -> None:
    """The answer stops within its body."""
    answer = exchange.forward()
    exchange.send(answer[:-2])
    exchange.stay_silent()


def drip(exchange: Exchange) -> None:
    """The answer comes byte by byte; it would take minutes."""
    exchange.drip(exchange.forward())


def reset_before(exchange: Exchange) -> None:
    """The connection breaks before the server has the request."""
    exchange.reset()


def reset_after(exchange: Exchange) -> None:
    """The server has acted, and the connection breaks before its answer."""
    exchange.forward()
    exchange.reset()


def reset_in_body(exchange: Exchange) -> None:
    """The connection breaks within the answer."""
    exchange.send(exchange.forward()[:-2])
    exchange.reset()


def garbage(exchange: Exchange) -> None:
    """What comes is no HTTP."""
    exchange.forward()
    exchange.send(b"\x16\x03\x01\x02\x00" * 40)
    raise Gone


def no_json(exchange: Exchange) -> None:
    """200, with a page of somebody else's."""
    exchange.forward()
    exchange.send(response(b"<html>Sign in to continue</html>", kind="text/html"))


def ok_with_error(exchange: Exchange) -> None:
    """200, and an error in it."""
    exchange.send(response(b'{"error": {"message": "No connected db.", "code": "500"}}'))


def answers(status: str) -> Fault:
    """Return a fault: that status, as a proxy in front of the server answers."""

    def fault(exchange: Exchange) -> None:
        exchange.send(response(b"<h1>no</h1>", status, "text/html"))

    return fault


def acted_and_answers(status: str) -> Fault:
    """Return a fault: the server has acted, and a proxy in front of it answers with that status."""

    def fault(exchange: Exchange) -> None:
        exchange.forward()
        answers(status)(exchange)

    return fault


def burst(count: int, status: str) -> Fault:
    """Return a fault: that status for each request's first attempts, and then the answer.

    Args:
        count: How often for each path.
        status: Of those answers.
    """
    seen: dict[str, int] = {}
    lock = threading.Lock()

    def fault(exchange: Exchange) -> None:
        with lock:
            seen[exchange.asked.target] = seen.get(exchange.asked.target, 0) + 1
            spoilt = seen[exchange.asked.target] <= count
        (answers(status) if spoilt and exchange.asked.method == "GET" else none)(exchange)

    return fault


# -- the proxy ---------------------------------------------------------------


class Proxy:
    """Listens on a port of its own, and passes on, spoils or refuses.

    Args:
        server: Port of the real server, on the loopback.
        port: Where to listen; a free one by default.

    Attributes:
        url: Where the service finds it.
    """

    def __init__(self, server: int, port: int = 0) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._over = threading.Event()
        self._fault: Fault = none
        self._port = port
        self.listen()
        self.url = f"http://127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many the service has to it."""
        with self._lock:
            return len(self._open)

    def spoil(self, fault: Fault) -> None:
        """Do this with every request from now on, those under way included."""
        with self._lock:
            over, self._over, self._fault = self._over, threading.Event(), fault
        over.set()

    def mend(self) -> None:
        """Pass everything on again."""
        self.spoil(none)
        self.listen()

    def listen(self) -> None:
        """Take connections."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(("127.0.0.1", self._port), backlog=256)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Take no more connections, and break those there are."""
        with self._lock:
            listener, self._listener = self._listener, None
            ends = list(self._open)
        for end in [*ends, *([listener] if listener else [])]:
            # Closing alone would not wake the thread that waits on it.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if listener is not None:
            listener.close()

    def stop(self) -> None:
        """Refuse, and let nobody wait any more."""
        self.spoil(none)
        self.refuse()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    self._open.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client.makefile("rb") as file:
                while (asked := _received(file)) is not None:
                    with self._lock:
                        fault, over = self._fault, self._over
                    fault(Exchange(client, asked, self._server, over))
                    client.settimeout(None)
        except (OSError, ValueError, Gone):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()


def _received(file: object) -> Asked | None:
    """Read a request; None where the connection has ended."""
    first = file.readline().decode("latin-1")  # type: ignore[attr-defined]
    if not first:
        return None
    method, target, _ = first.split(" ", 2)
    headers = {}
    while line := file.readline().decode("latin-1").strip():  # type: ignore[attr-defined]
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = file.read(int(headers.get("content-length", 0)))  # type: ignore[attr-defined]
    return Asked(method, target, headers, body)
