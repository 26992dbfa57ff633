"""Serves the metrics at an address of their own.

A single process uses a thread (:func:`serve`). For gunicorn's workers this file runs as a program
(:func:`start`) that reads the files in which they count, so that it answers even when all workers
are busy. It imports nothing of the package.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

PAUSE = 0.5  # seconds between two attempts to listen at an address


def serve(host: str, port: int) -> None:
    """Serve this process's metrics from a thread, until the process ends.

    Raises:
        OSError: The address is not free or not allowed.
    """
    start_http_server(port, host)


def start(host: str, port: int, folder: str, *, wait: bool = False) -> None:
    """Serve the metrics of all processes that count in ``folder``, until this process ends.

    ``folder`` is ``PROMETHEUS_MULTIPROC_DIR``. With ``wait``, an address that is in use is waited
    for in the background.

    Raises:
        OSError: The address is not allowed; or it is in use, without ``wait``.
    """
    with _listener(host, port, wait=wait) as listener:
        # The program's standard input ends when this process and its children have ended, in
        # whatever way. Not by subprocess: gevent's version watches children, as gunicorn does.
        ending, _ = os.pipe()
        if listener is not None:
            listener.set_inheritable(True)
        descriptor = str(listener.fileno()) if listener is not None else ""
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", __file__, folder, host, str(port), descriptor],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, ending, 0)],
        )
        os.close(ending)


@contextmanager
def _listener(host: str, port: int, *, wait: bool) -> Iterator[socket.socket | None]:
    """Listen at an address; yields None where it is in use and ``wait`` is true."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as exc:
        if not wait or exc.errno != errno.EADDRINUSE:
            raise
        yield None
        return
    with listener:
        yield listener


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds until a silent client is disconnected

    def log_message(self, *_args: Any) -> None:
        pass


def main() -> None:
    """Serve as the arguments say: folder, host, port, descriptor of a listening socket or ""."""
    # Ctrl-C in a terminal reaches this program, too, which ends after its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_serve, args=sys.argv[1:], daemon=True).start()
    while os.read(0, 1024):
        pass


def _serve(folder: str, host: str, port: str, descriptor: str) -> None:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    server = _Server(("", 0), _Quiet, bind_and_activate=False)
    server.socket.close()
    if descriptor:
        server.socket = socket.socket(fileno=int(descriptor))
    else:
        server.socket = _awaited(host, int(port))
    server.server_bind()
    server.set_app(make_wsgi_app(registry))
    server.serve_forever()


def _awaited(host: str, port: int) -> socket.socket:
    """Wait until an address is free; return a socket that listens at it."""
    while True:
        with _listener(host, port, wait=True) as listener:
            if listener is not None:
                return listener.dup()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
