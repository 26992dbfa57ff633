"""A client of the WSGI application that sends paths as they are."""

from __future__ import annotations

import io
import json as jsonlib
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from werkzeug.test import TestResponse, run_wsgi_app
from werkzeug.wrappers import Request

from tests.canaries import WATCH
from tests.fakes.network import NOTHING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

MOUNT = "/api/litellm"
JWKS_PATH = "/.backstage/auth/v1/jwks.json"

Json = dict[str, Any]
Headers = dict[str, str]
HeadersOf = Callable[[str], Headers]


class PluginClient:
    """Asks one application, with paths below the plugin's mount.

    Werkzeug's own client normalises the path; this one hands the application
    what a WSGI server makes of it: decoded in ``PATH_INFO``, and untouched in
    ``RAW_URI``.

    Args:
        app: The application.
        mount: Put in front of every path.
        headers_of: Makes the credentials of a caller, as the contract's ``as`` names them.
    """

    def __init__(
        self, app: WSGIApplication, mount: str = MOUNT, headers_of: HeadersOf | None = None
    ) -> None:
        self.app = app
        self.mount = mount
        self._headers_of = headers_of

    def request(
        self,
        method: str,
        path: str,
        *,
        who: str | None = None,
        json: Any = NOTHING,
        raw: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> TestResponse:
        """Send one request; redirects are not followed.

        Args:
            method: HTTP method.
            path: Path and query below the mount, percent-encoded or not: as on the wire.
            who: The caller, such as ``bob`` or ``static``; by default nobody.
            json: Sent as JSON; null is ``None``.
            raw: Sent as it is, without a Content-Type unless ``headers`` has one.
            headers: Request headers.
        """
        sent = dict(headers or {})
        if who is not None:
            assert self._headers_of is not None
            sent = {**self._headers_of(who), **sent}
        body = raw.encode() if isinstance(raw, str) else raw
        if json is not NOTHING:
            body = jsonlib.dumps(json).encode()
            sent.setdefault("Content-Type", "application/json")
        environ = _environ(method, self.mount + path, sent, body)
        chunks, status, answered = run_wsgi_app(self.app, environ, buffered=True)
        answer = TestResponse(chunks, status, answered, request=Request(environ))
        WATCH.answer(answer)
        return answer

    def get(self, path: str, **sent: Any) -> TestResponse:
        return self.request("GET", path, **sent)

    def post(self, path: str, **sent: Any) -> TestResponse:
        return self.request("POST", path, **sent)

    def put(self, path: str, **sent: Any) -> TestResponse:
        return self.request("PUT", path, **sent)

    def patch(self, path: str, **sent: Any) -> TestResponse:
        return self.request("PATCH", path, **sent)

    def delete(self, path: str, **sent: Any) -> TestResponse:
        return self.request("DELETE", path, **sent)


def json_of(answer: TestResponse, status: int = 200) -> Any:
    """Return the JSON of an answer that must have ``status``."""
    assert answer.status_code == status, answer.text
    return answer.get_json()


# Makes the client of an application with other settings; the fixture ``serve``.
Serve = Callable[..., PluginClient]


def environ_of(method: str, target: str, headers: Mapping[str, str], json: Any) -> WSGIEnvironment:
    """Return what a WSGI server makes of a request with a body of JSON."""
    return _environ(method, target, headers, jsonlib.dumps(json).encode())


def _environ(
    method: str, target: str, headers: Mapping[str, str], body: bytes | None
) -> WSGIEnvironment:
    raw = target.encode()
    path, _, query = raw.partition(b"?")
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "RAW_URI": raw.decode("latin-1"),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body or b""),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body is not None:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    return environ
