"""The gunicorn worker that ``gunicorn_conf.py`` chooses: gevent's, with some habits changed.

For gunicorn alone; whoever imports it has gevent, and has patched what it patches.
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

# gunicorn looks once a second whether to close its listening sockets; what came in
# before that has sent its request by then.
LAST_CONNECTIONS = 1.5  # seconds

# Who sends a byte now and then would keep one of a worker's connections for ever; a body
# has 100 KB at most. Headers have ``keepalive`` seconds, by gunicorn.
BODY_SECONDS = 30.0
ANSWER_SECONDS = 60.0  # for a client to take the answer

# Of a body that was not read to its end: the client may still be sending.
LINGER_SECONDS = 2.0
MAX_LEFT = 1 << 20  # bytes

# A connection that comes is offered to all workers. One waits before it takes it, longer the more
# it has; else the first to wake up would have them all, and keep them while another is idle.
YIELD_EACH = 0.0001  # seconds, for each connection that it has
YIELD_MOST = 0.002


class SlowBodyError(TimeoutError):
    """The client took too long to send a request's body."""

    def __init__(self) -> None:
        super().__init__("the request's body took too long")
        self.errno = errno.ECONNRESET  # gunicorn tells others with their traceback


class _InTime:
    """Reads a request's body, from the first to the last byte, in ``BODY_SECONDS``.

    Attributes:
        reader: gunicorn's.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self._until: float | None = None

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes.

        Raises:
            SlowBodyError: They took too long.
        """
        if self._until is None:
            self._until = time.monotonic() + BODY_SECONDS
        left = max(self._until - time.monotonic(), 0.001)
        with gevent.Timeout(left, SlowBodyError()):
            read: bytes = self.reader.read(size)
        return read


class _Listener(StreamServer):  # type: ignore[misc]  # it has no types
    """Takes connections after workers that have fewer of them."""

    _may_take = 0  # before it waits again

    def do_read(self) -> Any:
        """Return a connection and where it is from; None where there is none, or not yet."""
        if self._may_take or not len(self.pool):
            taken = super().do_read()
            self._may_take = max(self._may_take - 1, 0) if taken else 0
            return taken
        self.stop_accepting()
        gevent.spawn_later(min(len(self.pool) * YIELD_EACH, YIELD_MOST), self._go_on)
        return None

    def _go_on(self) -> None:
        # A busy worker comes back late, and must not fall behind with those who wait.
        self._may_take = 1 + len(self.pool) // 4
        if self.started:
            self.start_accepting()


class Worker(GeventWorker):  # type: ignore[misc]  # it has no types
    """Serves each connection in a greenlet, in turn; lets go of idle ones when it ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clients: dict[gevent.Greenlet, Any] = {}  # the socket of each connection
        self._idle: dict[gevent.Greenlet, float] = {}  # since when, on the monotonic clock

    def server_class(self, listener: Any, *, spawn: Any, **others: Any) -> StreamServer:
        """Return what takes the connections of a listening socket."""
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
        """Limit how long a connection may wait for its next request."""
        greenlet = gevent.getcurrent()
        self._idle[greenlet] = time.monotonic()
        try:
            with super().timeout_ctx():
                yield
        finally:
            del self._idle[greenlet]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer one request, and let the other connections have their turn.

        A client that sends its next request at once would be answered for ever: nothing
        that there is to read makes a greenlet wait.
        """
        has_body = getattr(req.body.reader, "length", None) != 0
        if has_body:
            req.body.reader = _InTime(req.body.reader)
        sock.settimeout(ANSWER_SECONDS)
        self._tell_of_the_end(req)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if has_body:
                # What is left of the body would reset the connection, and the answer be lost.
                _linger(sock)
            raise
        finally:
            # It refers to the request: a cycle, which would be left to the garbage collector.
            req.__dict__.pop("should_close", None)
        sock.settimeout(None)
        gevent.sleep(0)

    def _tell_of_the_end(self, req: Any) -> None:
        """Let the answer's headers say whether the connection ends with it, and keep to that.

        A client that is not told sends its next request, which would be lost.
        """
        wanted = req.should_close
        told: list[bool] = []

        def should_close() -> bool:
            if not told:  # the headers are made
                told.append(wanted() or not self.alive)
            return told[0]

        req.should_close = should_close

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end: requests are finished, and idle connections closed.

        gunicorn waits for those as well, which are a reverse proxy's and stay open for
        longer than ``graceful_timeout``.
        """
        super().handle_exit(sig, frame)
        gevent.spawn_later(LAST_CONNECTIONS, self._close_idle)

    def _close_idle(self) -> None:
        # One that was answered a moment ago may be used again at this moment. What it sends is
        # answered, and then it is closed.
        for greenlet, since in list(self._idle.items()):
            rested = time.monotonic() - since >= LAST_CONNECTIONS
            if rested and _quiet(self._clients[greenlet]):
                greenlet.kill(NoMoreData(), block=False)
        gevent.spawn_later(LAST_CONNECTIONS / 3, self._close_idle)


def _linger(client: Any) -> None:
    """Say that the answer is over, and read on until the client ends the connection too."""
    left = MAX_LEFT
    with suppress(OSError), gevent.Timeout(LINGER_SECONDS, False):
        client.shutdown(socket.SHUT_WR)
        while left > 0 and (data := client.recv(64 * 1024)):
            left -= len(data)


def _quiet(client: Any) -> bool:
    """Tell whether nothing has come in that is still to be read."""
    limit = client.gettimeout()
    client.settimeout(0)
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):  # nothing; or TLS, which can't be looked into
        return True
    finally:
        client.settimeout(limit)
