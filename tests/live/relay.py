"""The line between the service and one of its upstreams, which a test may cut."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Lock, Thread

from tests.deployed import free_port


class Relay:
    """Passes TCP connections on to a server while the line is up.

    The server itself stays up for everybody else. A relay starts cut.

    Args:
        port: Of the server, on the loopback.
    """

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._lock = Lock()
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._silent = False
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        """Let connections through."""
        self.cut()
        self._listen(silent=False)

    def silence(self) -> None:
        """Take connections and never answer, as a host that hangs does."""
        self.cut()
        self._listen(silent=True)

    def cut(self) -> None:
        """Refuse connections, and break those there are."""
        with self._lock:
            listener, self._listener = self._listener, None
            ends, self._open = self._open, []
        for end in [*ends, *([listener] if listener else [])]:
            # Closing alone would not wake the thread that waits on it.
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _listen(self, *, silent: bool) -> None:
        listener = socket.create_server(("127.0.0.1", self._port))
        with self._lock:
            self._listener, self._silent = listener, silent
        Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    if self._listener is not listener:
                        client.close()
                        return
                    self._open.append(client)
                    silent = self._silent
                if not silent:
                    self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._server)
        except OSError:
            client.close()
            return
        with self._lock:
            self._open.append(server)
        for source, sink in ((client, server), (server, client)):
            Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(64 * 1024):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
