"""What Backstage's HTTP layer puts on every answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from flask import Request, Response

from litellm_plugin.telemetry.context import REQUEST_ID

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
# Answers are about the caller, and may hold a key: nobody on the way keeps one.
PRIVATE = {**SECURITY, "Cache-Control": "no-store"}


class SecuredResponse(Response):
    """A response that has the security headers when it is sent, and that nobody may keep.

    They are the same on all, and werkzeug checks every header of every
    response three times; these are put behind what it has checked. So is the
    request's id, which was checked when it came.
    """

    lines: ClassVar = list(PRIVATE.items())

    def get_wsgi_response(
        self, environ: WSGIEnvironment
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return what is sent: body, status and headers."""
        body, status, lines = super().get_wsgi_response(environ)
        name = environ.get(REQUEST_ID)
        named = [("X-Request-Id", name)] if name else []
        return body, status, lines + self.lines + named


class PublicResponse(SecuredResponse):
    """A document for anybody, which may be kept."""

    lines: ClassVar = list(SECURITY.items())


def finish(response: Response, asked: Request) -> Response:
    """Put a weak ETag on a JSON answer, and honour If-None-Match."""
    if not isinstance(response, SecuredResponse):
        response.headers.update(PRIVATE)
        if name := asked.environ.get(REQUEST_ID):
            response.headers["X-Request-Id"] = name
    if response.content_type == JSON or response.is_json:
        digest = hashlib.sha1(response.get_data()).hexdigest()  # noqa: S324 - no secret
        response.headers["ETag"] = f'W/"{digest}"'
        known = "HTTP_IF_NONE_MATCH" in asked.environ
        if known and 200 <= response.status_code < 300 and not asked.cache_control.no_cache:
            response.make_conditional(asked)
    return response
