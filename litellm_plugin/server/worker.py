"""gunicorn's worker (``worker_class``): its gevent worker, with some behaviour changed.

It limits how long bodies and answers may take, spreads connections over the workers, and
closes idle connections when it ends.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.ggevent import GeventWorker

# Seconds for a new connection to send its first request, after the worker receives SIGTERM.
# gunicorn closes its listening sockets up to one second after that.
LAST_CONNECTIONS = 1.5

# A client that sends a byte now and then would hold a connection for ever. A body has 100 KB at
# most; gunicorn limits headers to ``keepalive`` seconds.
BODY_SECONDS = 30.0
ANSWER_SECONDS = 60.0  # for a client to take the answer

# Limits for reading the rest of a body that the client still sends after its answer.
LINGER_SECONDS = 2.0
MAX_LEFT = 1 << 20  # bytes

# All workers are offered each new connection. A worker that has connections waits before it
# accepts; otherwise the first to wake up would get all, while another worker is idle.
YIELD_EACH = 0.0001  # seconds, for each connection that the worker has
YIELD_MOST = 0.002  # seconds


class SlowBodyError(TimeoutError):
    """The client took too long to send a request's body."""

    def __init__(self) -> None:
        super().__init__("the request's body took too long")
        self.errno = errno.ECONNRESET  # gunicorn logs other errors with a traceback


class _TimedBody:
    """Reads a request's body within ``BODY_SECONDS`` from the first byte to the last."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader  # gunicorn's
        self._until: float | None = None

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes.

        Raises:
            SlowBodyError: The body takes too long.
        """
        if self._until is None:
            self._until = time.monotonic() + BODY_SECONDS
        left = max(self._until - time.monotonic(), 0.001)
        with gevent.Timeout(left, SlowBodyError()):
            read: bytes = self.reader.read(size)
        return read


class _Listener(StreamServer):  # type: ignore[misc]  # it has no types
    """Accepts connections later than workers with fewer connections."""

    _may_take = 0  # connections to accept before it waits again

    def do_read(self) -> Any:
        """Return a new connection and its address; None for no connection, or to wait first."""
        if self._may_take or not len(self.pool):
            taken = super().do_read()
            self._may_take = max(self._may_take - 1, 0) if taken else 0
            return taken
        self.stop_accepting()
        gevent.spawn_later(min(len(self.pool) * YIELD_EACH, YIELD_MOST), self._go_on)
        return None

    def _go_on(self) -> None:
        # A busy worker wakes up late; it accepts several then, so that clients do not wait long.
        self._may_take = 1 + len(self.pool) // 4
        if self.started:
            self.start_accepting()


class Worker(GeventWorker):  # type: ignore[misc]  # it has no types
    """Serves each connection in a greenlet; closes idle connections when it ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[gevent.Greenlet, Any] = {}  # sockets
        self._idle: dict[gevent.Greenlet, float] = {}  # monotonic time since a connection is idle

    def server_class(self, listener: Any, *, spawn: Any, **others: Any) -> StreamServer:
        """Return the server that accepts connections at a listening socket."""
        kind = _Listener if self.cfg.workers > 1 else StreamServer
        tls = {name: others[name] for name in others if name == "ssl_context"}
        return kind(listener, handle=partial(self.handle, listener), spawn=spawn, **tls)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        greenlet = gevent.getcurrent()
        self._clients[greenlet] = client
        try:
            super().handle(listener, client, addr)
        finally:
            del self._clients[greenlet]

    @contextmanager
    def timeout_ctx(self) -> Iterator[None]:
        """Limit how long a connection may be idle, and record it as idle."""
        greenlet = gevent.getcurrent()
        self._idle[greenlet] = time.monotonic()
        try:
            with super().timeout_ctx():
                yield
        finally:
            del self._idle[greenlet]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer one request, and let other greenlets run.

        Otherwise a client that always has its next request ready would block all others.
        """
        has_body = getattr(req.body.reader, "length", None) != 0
        if has_body:
            req.body.reader = _TimedBody(req.body.reader)
        sock.settimeout(ANSWER_SECONDS)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if has_body:
                # Closing with unread data would reset the connection, and the answer be lost.
                _linger(sock)
            raise
        sock.settimeout(None)
        gevent.sleep(0)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down gracefully: finish requests under way, and close idle connections.

        gunicorn alone would wait for idle ones, too; a reverse proxy keeps them open for longer
        than ``graceful_timeout``.
        """
        super().handle_exit(sig, frame)
        gevent.spawn_later(LAST_CONNECTIONS, self._close_idle)

    def _close_idle(self) -> None:
        # A connection that was used a moment ago may get another request now. That is answered,
        # and the connection closed afterwards.
        for greenlet, since in list(self._idle.items()):
            rested = time.monotonic() - since >= LAST_CONNECTIONS
            if rested and _quiet(self._clients[greenlet]):
                greenlet.kill(NoMoreData(), block=False)
        gevent.spawn_later(LAST_CONNECTIONS / 3, self._close_idle)


def _linger(client: Any) -> None:
    """Close the sending side, and read on until the client closes the connection."""
    left = MAX_LEFT
    with suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):
        client.shutdown(socket.SHUT_WR)
        while left > 0 and (data := client.recv(64 * 1024)):
            left -= len(data)


def _quiet(client: Any) -> bool:
    """Tell whether no unread data of the client is waiting."""
    limit = client.gettimeout()
    client.settimeout(0)
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # nothing; or TLS, which can't peek
        return True
    finally:
        client.settimeout(limit)
