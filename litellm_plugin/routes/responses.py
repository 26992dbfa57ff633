"""Responses: compact JSON, Backstage's security headers, ETag and CORS headers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from typing import TYPE_CHECKING, Any, cast

import orjson
from flask import Request, Response
from werkzeug.wsgi import ClosingIterator

from litellm_plugin.config.settings import Cors
from litellm_plugin.observability.request_id import REQUEST_ID

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

JSON = "application/json; charset=utf-8"
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self';base-uri 'self';font-src 'self' https: data:;frame-ancestors 'self';"
        "img-src 'self' data:;object-src 'none';script-src 'self' 'unsafe-eval';"
        "script-src-attr 'none';style-src 'self' https: 'unsafe-inline';upgrade-insecure-requests"
    ),
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=15552000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-DNS-Prefetch-Control": "off",
    "X-Download-Options": "noopen",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Permitted-Cross-Domain-Policies": "none",
    "X-XSS-Protection": "0",
}
# Responses are about one caller, and may have a key.
PRIVATE = {**SECURITY, "Cache-Control": "no-store"}


class SecuredResponse(Response):
    """A response with the security headers, which no cache may keep.

    The headers are added when the response is sent. An application that mounts the blueprint may
    have set some of them by then, and its values win, except for ``Cache-Control``.

    Attributes:
        public: Whether caches may keep the response.
        varies_by_origin: Whether the response depends on ``Origin``.
        after_sending: Called with True when the server has sent the body, with False if it could
            not.
    """

    public = False
    varies_by_origin = False
    after_sending: Callable[[bool], None] | None = None

    def get_wsgi_response(
        self, environ: WSGIEnvironment
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return body, status and headers as they are sent."""
        body, status, sent = super().get_wsgi_response(environ)
        # Added to the finished list: werkzeug would check these constants on every response.
        ours = SECURITY if self.public else PRIVATE
        if not self.public:
            sent = [header for header in sent if header[0].lower() != "cache-control"]
        theirs = {name.lower() for name, _ in sent}
        sent += [header for header in ours.items() if header[0].lower() not in theirs]
        if REQUEST_ID in environ and "x-request-id" not in theirs:
            sent.append(("X-Request-Id", environ[REQUEST_ID]))
        if self.varies_by_origin:
            vary = [value for name, value in sent if name.lower() == "vary"]
            if not any(part.strip().lower() == "origin" for part in ",".join(vary).split(",")):
                vary.append("Origin")
            sent = [header for header in sent if header[0].lower() != "vary"]
            sent.append(("Vary", ", ".join(vary)))
        if self.after_sending is not None:
            body = _WatchedBody(body, self.after_sending)
        return body, status, sent


class _WatchedBody:
    """A response body that calls :attr:`SecuredResponse.after_sending` once.

    A WSGI server takes the next part of a body after it has sent the part before, and closes the
    body at the end or when a part can't be sent. A surrounding application may close a body
    without taking any part.
    """

    def __init__(self, body: Iterable[bytes], after_sending: Callable[[bool], None]) -> None:
        self._body = body
        self._parts = iter(body)
        self._after_sending: Callable[[bool], None] | None = after_sending

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            self._end(sent=True)
            raise

    def close(self) -> None:
        """Close the body; if it was not read to its end before, it was not sent."""
        try:
            if isinstance(self._body, ClosingIterator):
                self._body.close()
        finally:
            self._end(sent=False)

    def _end(self, *, sent: bool) -> None:
        after_sending, self._after_sending = self._after_sending, None
        if after_sending is not None:
            after_sending(sent)


class PublicResponse(SecuredResponse):
    """A public document, which caches may keep."""

    public = True


def json_response(
    value: Any, status: int = 200, *, kind: type[SecuredResponse] = SecuredResponse
) -> Response:
    """Return ``value`` as JSON, as compact as JavaScript writes it; bytes are JSON text already."""
    body = value if isinstance(value, bytes) else json_text(value)
    return kind(body, status=status, content_type=JSON)


def json_text(value: Any) -> bytes:
    """Return compact JSON in UTF-8."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # LiteLLM's JSON may have lone surrogates. UTF-8 can't hold them, so they are escaped.
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "backslashreplace")


def secured(response: Response) -> SecuredResponse:
    """Return the response as a :class:`SecuredResponse`."""
    if isinstance(response, SecuredResponse):
        return response
    return cast("SecuredResponse", SecuredResponse.force_type(response))


def add_etag(response: SecuredResponse, request: Request) -> None:
    """Put a weak ETag on a JSON answer; answer 304 where ``If-None-Match`` has it."""
    if not response.is_json:
        return
    digest = hashlib.sha1(response.get_data()).hexdigest()  # noqa: S324 - no secret
    response.headers["ETag"] = f'W/"{digest}"'
    asked = "If-None-Match" in request.headers and not request.cache_control.no_cache
    if asked and 200 <= response.status_code < 300:
        response.make_conditional(request)


class CrossOrigin:
    """Cross-origin requests (CORS), by ``backend.cors`` as Backstage applies it."""

    def __init__(self, cors: Cors) -> None:
        self._cors = cors
        pattern = "|".join(map(translate, cors.origins)) or r"(?!)"
        self._allowed = re.compile(pattern).fullmatch

    def preflight(self, asked: Request) -> Response | None:
        """Answer the preflight of an allowed origin; None for any other request."""
        if asked.method != "OPTIONS" or not self._allowed(asked.headers.get("Origin", "")):
            return None
        response = SecuredResponse(status=204)
        del response.headers["Content-Type"]
        response.headers["Access-Control-Allow-Methods"] = ",".join(self._cors.methods)
        wanted = asked.headers.get("Access-Control-Request-Headers")
        if self._cors.allowed_headers is not None:
            allowed = ",".join(self._cors.allowed_headers)
            response.headers["Access-Control-Allow-Headers"] = allowed
        else:
            response.vary.add("Access-Control-Request-Headers")
            if wanted:
                response.headers["Access-Control-Allow-Headers"] = wanted
        if self._cors.max_age is not None:
            response.access_control_max_age = self._cors.max_age
        return response

    def finish(self, response: SecuredResponse, asked: Request) -> None:
        """Set the headers that let a page of an allowed origin read the answer."""
        response.varies_by_origin = True
        origin = asked.headers.get("Origin", "")
        if origin and self._allowed(origin):
            response.access_control_allow_origin = origin
            response.access_control_allow_credentials = self._cors.credentials
            if self._cors.exposed_headers:
                exposed = ",".join(self._cors.exposed_headers)
                response.headers["Access-Control-Expose-Headers"] = exposed
