"""Serves the metrics, at an address of their own.

In one process a thread does (:func:`serve`). Beside gunicorn's workers this file runs as a
program of its own (:func:`start`): it reads the files that the workers count in, so it is
answered when they are all busy, and needs nothing of the package.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector


def serve(host: str, port: int) -> None:
    """Serve this process's metrics from a thread, for as long as the process lives.

    Raises:
        OSError: The address can't be had.
    """
    start_http_server(port, host)


def start(host: str, port: int, folder: str) -> None:
    """Serve the metrics of all processes that count in ``folder``, until this one ends.

    Raises:
        OSError: The address can't be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        # Its standard input ends when this process and all forked from it have ended, however
        # that happens. Not by subprocess: gevent's one watches children, as gunicorn does.
        ending, _ = os.pipe()
        listener.set_inheritable(True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-P", __file__, str(listener.fileno()), folder],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, ending, 0)],
        )
        os.close(ending)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # seconds; nobody holds a thread by saying nothing

    def log_message(self, *_args: Any) -> None:
        pass


def main() -> None:
    """Serve from the socket, and of the folder, that the arguments name."""
    descriptor, folder = int(sys.argv[1]), sys.argv[2]
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    listener = socket.socket(fileno=descriptor)
    server = _Server(("", 0), _Quiet, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.server_bind()
    server.set_app(make_wsgi_app(registry))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's; the other one tells us to end
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.read(0, 1024):
        pass


if __name__ == "__main__":
    main()
