"""Serves the metrics of gunicorn's workers at an address of their own.

This file runs as a program (:func:`start`) that reads the workers' metric files, so that it
answers even when all workers are busy. It imports nothing of the package.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

PAUSE = 0.5  # seconds between two attempts to listen at an address
SILENCE = 10.0  # seconds until a silent client is disconnected; prometheus_client has no limit


def start(host: str, port: int, folder: str, *, wait: bool = False) -> None:
    """Serve the metrics of all processes that count in ``folder``, until this process ends.

    ``folder`` is ``PROMETHEUS_MULTIPROC_DIR``. With ``wait``, an address that is in use is waited
    for in the background.

    Raises:
        OSError: The address is not allowed; or it is in use, without ``wait``.
    """
    # The program listens at the address itself; here a faulty one ends gunicorn's start.
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as exc:
        if not wait or exc.errno != errno.EADDRINUSE:
            raise
    # The program's standard input ends when this process and its children have ended. subprocess
    # is not used, as gevent's version waits for children, like gunicorn.
    ending, _ = os.pipe()
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", __file__, folder, host, str(port)],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, ending, 0)],
    )
    os.close(ending)


def main() -> None:
    """Serve as the arguments say: folder, host, port."""
    # Ctrl-C in a terminal also reaches this program, which must end after its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_serve, args=sys.argv[1:], daemon=True).start()
    while os.read(0, 1024):
        pass


def _serve(folder: str, host: str, port: str) -> None:
    socket.setdefaulttimeout(SILENCE)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    while True:
        try:
            start_http_server(int(port), host, registry)
        except OSError:  # in use, by a master that is about to end
            time.sleep(PAUSE)
        else:
            return


if __name__ == "__main__":
    main()
