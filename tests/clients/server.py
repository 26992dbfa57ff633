"""A TCP server on the loopback that answers by script, byte for byte."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

PATIENCE = 60.0  # seconds until a test that waits for the other side gives up
DRIP = 0.02  # seconds between two pieces


@dataclass(frozen=True)
class Received:
    """A request, as it came over the wire.

    Attributes:
        target: Path and query, or the whole URL where a proxy is asked.
        headers: Names in lower case.
        connection: The number of the connection, from 0.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Peer:
    """The server's end of one connection.

    Attributes:
        asked: The request that is being answered.
    """

    asked: Received

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")
        self._stopping = stopping
        self.closed = False

    def receive(self, connection: int) -> bool:
        """Read the next request; tell whether there was one before the client hung up."""
        first = self._file.readline()
        if not first:
            return False
        method, target, _ = first.decode("latin-1").split(" ", 2)
        headers = {}
        while (line := self._file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", 0)))
        self.asked = Received(method, target, headers, body, connection)
        return True

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def drip(self, pieces: Iterable[bytes]) -> None:
        """Send piece after piece until the client has had enough."""
        for piece in pieces:
            self.send(piece)
            if self._stopping.wait(DRIP):
                return

    def flood(self, piece: bytes) -> None:
        """Send the same again and again until the client has had enough."""
        while True:
            self.send(piece)

    def wait_until_gone(self) -> None:
        """Say nothing until the client hangs up."""
        while self._file.read(1):
            pass

    def close(self) -> None:
        self.closed = True
        self._file.close()
        self._sock.close()

    def reset(self) -> None:
        """Break the connection off, so that the client gets ECONNRESET."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


Script = Callable[[Peer], Any]


def answer(
    body: bytes = b"{}", *headers: str, status: str = "200 OK", length: int | None = None
) -> bytes:
    """Return an HTTP answer; ``length`` may lie."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, headers: Iterable[str] = ()) -> bytes:
    """Return an HTTP answer in chunks; its last one is missing unless it is ``b""``."""
    head = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *headers, "", ""]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return "\r\n".join(head).encode("latin-1") + body


def sends(data: bytes) -> Script:
    """Return a script that sends and keeps the connection."""
    return lambda peer: peer.send(data)


def sends_and_closes(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.send(data)
        peer.close()

    return script


class Server:
    """Runs one script per request, in order; the last one again and again.

    Attributes:
        received: Every request.
        opened: How many connections were made.
    """

    def __init__(self, *scripts: Script, tls: ssl.SSLContext | None = None) -> None:
        self.received: list[Received] = []
        self.opened = 0
        self._scripts = list(scripts) or [sends(answer())]
        self._tls = tls
        self._changed = threading.Condition()
        self._open = 0
        self._stopping = threading.Event()
        self._socks: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def all_closed(self) -> bool:
        """Wait until no connection is open; tell whether that came to be."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, PATIENCE)

    def stop(self) -> None:
        self._stopping.set()
        # Closing alone does not wake a thread that waits in accept() or recv().
        for sock in [self._listener, *self._socks]:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                number, self.opened, self._open = self.opened, self.opened + 1, self._open + 1
            self._socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, number))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                self._socks.append(sock)
            with closing(Peer(sock, self._stopping)) as peer:
                while not peer.closed and peer.receive(number):
                    with self._changed:
                        self.received.append(peer.asked)
                        script = self._scripts[0]
                        if len(self._scripts) > 1:
                            del self._scripts[0]
                    script(peer)
        except (OSError, ValueError):  # the client has hung up, or speaks TLS
            sock.close()
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()
