"""The loopback server that the issuer's redirect comes to (RFC 8252, section 7.3)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from queue import Empty, Queue
from socketserver import ThreadingTCPServer
from threading import Lock, Thread
from typing import Any, Self
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


class Callback(ThreadingTCPServer):
    """Receives one redirect with the right ``state``, on a free port of 127.0.0.1.

    Any other request gets 404, and neither ends nor delays the sign-in: each connection has a
    thread, as browsers open connections without using them. Use it in a ``with`` block. It is not
    based on ``http.server.HTTPServer``, which looks up the name of 127.0.0.1: that takes seconds on
    some hosts.

    Args:
        state: The ``state`` of the authorization request.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._answers: Queue[Mapping[str, str]] = Queue()
        self._first = Lock()  # never released: one request is taken
        self._state = state
        self._host = f"127.0.0.1:{self.server_address[1]}"
        self.redirect_uri = f"http://{self._host}{PATH}"

    def __enter__(self) -> Self:
        """Start the server."""
        Thread(target=self.serve_forever, args=(_POLL,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the server."""
        self.shutdown()
        self.server_close()

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
        try:
            parts = urlsplit(target)
        except ValueError:  # no URL
            return None
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no traceback when a browser hangs up."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _IDLE
    server: Callback

    def do_GET(self) -> None:
        parameters = self.server.redirect(self.path, self.headers.get("Host", ""))
        try:
            self._send(_PAGE if parameters is not None else b"")
        finally:
            if parameters is not None:
                self.server.deliver(parameters)

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
