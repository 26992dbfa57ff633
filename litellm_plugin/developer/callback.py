"""The loopback server that the issuer's redirect comes to (RFC 8252, section 7.3)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from queue import Empty, Queue
from socketserver import ThreadingTCPServer
from threading import Lock, Thread
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from litellm_plugin.developer.errors import CommandError

PATH = "/callback"

_POLL = 0.01  # seconds between checks whether the server is to stop
_IDLE = 10.0  # seconds until a silent connection is closed
# The page has nothing of the request, so nothing can be injected.
_PAGE = (
    b"<!doctype html><html lang=en><meta charset=utf-8><title>litellm-plugin</title>"
    b"<p>litellm-plugin has the answer of the sign-in. You can close this page.</p></html>"
)


class Callback:
    """Receives one redirect with the right ``state``, on a free port of 127.0.0.1.

    Any other request gets 404, and neither ends nor delays the sign-in. Use it in a ``with`` block.

    Args:
        state: The ``state`` of the authorization request.
    """

    def __init__(self, state: str) -> None:
        self._answers: Queue[Mapping[str, str]] = Queue()
        self._first = Lock()  # never released: one request is taken
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.callback = self
        self._state = state
        self._host = f"127.0.0.1:{self._server.server_address[1]}"
        self.redirect_uri = f"http://{self._host}{PATH}"

    def __enter__(self) -> Callback:
        """Start the server."""
        Thread(target=self._server.serve_forever, args=(_POLL,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def wait(self, seconds: float) -> Mapping[str, str]:
        """Return the parameters of the redirect.

        Raises:
            CommandError: No redirect came within ``seconds``.
        """
        try:
            return self._answers.get(timeout=seconds)
        except Empty as exc:
            raise CommandError(
                f"Nobody signed in within {seconds / 60:g} minutes. Where this host has no "
                "browser, use: litellm-plugin login --device"
            ) from exc

    def redirect(self, target: str, host: str) -> Mapping[str, str] | None:
        """Return the parameters of a request; None if it is not the redirect, or not the first."""
        parts = urlsplit(target)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        parameters = dict(pairs)
        right = (
            parts.path == PATH
            and host == self._host  # another name means DNS rebinding
            and len(parameters) == len(pairs)
            and hmac.compare_digest(parameters.get("state", "").encode(), self._state.encode())
            and self._first.acquire(blocking=False)
        )
        return parameters if right else None

    def deliver(self, parameters: Mapping[str, str]) -> None:
        """Let :meth:`wait` return these parameters."""
        self._answers.put(parameters)


class _Server(ThreadingTCPServer):
    """A server with a thread for each connection, as browsers open connections without using them.

    It is no ``http.server.HTTPServer``, which looks up the name of 127.0.0.1: that takes seconds on
    some hosts.
    """

    daemon_threads = True
    block_on_close = False
    callback: Callback

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback when a browser hangs up."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE
    server: _Server

    def do_GET(self) -> None:
        try:
            parameters = self.server.callback.redirect(self.path, self.headers.get("Host", ""))
        except ValueError:  # no URL
            parameters = None
        try:
            self._send(_PAGE if parameters is not None else b"")
        finally:
            if parameters is not None:
                self.server.callback.deliver(parameters)

    def _send(self, page: bytes) -> None:
        self.send_response_only(200 if page else 404)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(page))),
            ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page)

    def send_error(self, *_: Any) -> None:
        """Answer any request but GET with 404; http.server would quote the request."""
        self.close_connection = True
        self._send(b"")

    def log_message(self, *_: Any) -> None:
        """Log nothing: the request has the authorization code."""
