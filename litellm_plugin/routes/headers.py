"""What Backstage's HTTP layer puts on every answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, cast

from flask import Request, Response

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
# Answers are about the caller, and may hold a key: nobody on the way keeps one.
PRIVATE = {**SECURITY, "Cache-Control": "no-store"}

Lines = list[tuple[str, str]]


class SecuredResponse(Response):
    """A response that has the security headers when it is sent, and that nobody may keep.

    They are the same on all, and werkzeug checks every header of every
    response three times; these are put behind what it has checked. So is the
    request's id, which was checked when it came.

    An application that mounts the blueprint may have set some of them by then. Its own
    are sent in place of ours, but for ``Cache-Control``: the answer may hold a key.

    Attributes:
        origin_decides: Whether the answer depends on ``Origin``.
    """

    lines: ClassVar[dict[str, str]] = PRIVATE
    origin_decides = False

    def get_wsgi_response(
        self, environ: WSGIEnvironment
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Return what is sent: body, status and headers."""
        body, status, lines = super().get_wsgi_response(environ)
        ours = list(self.lines.items())
        if name := environ.get(REQUEST_ID):
            ours.append(("X-Request-Id", name))
        if self.origin_decides:
            ours.append(("Vary", "Origin"))
        if not _OURS.isdisjoint(name.lower() for name, _ in lines):
            return body, status, _merged(lines, ours)
        return body, status, lines + ours


_OURS = frozenset(name.lower() for name in (*PRIVATE, "X-Request-Id", "Vary"))


def _merged(theirs: Lines, ours: Lines) -> Lines:
    """Return the application's headers, ours where there is none of them, and one ``Vary``."""
    keep_ours = {name.lower() for name, _ in ours} & {"cache-control"}
    theirs = [line for line in theirs if line[0].lower() not in keep_ours]
    known = {name.lower() for name, _ in theirs}
    both = theirs + [line for line in ours if line[0].lower() not in known - {"vary"}]
    varied = [
        part.strip() for name, value in both if name.lower() == "vary" for part in value.split(",")
    ]
    lines = [line for line in both if line[0].lower() != "vary"]
    if varied:
        by_name = {name.lower(): name for name in varied if name}
        lines.append(("Vary", ", ".join(by_name.values())))
    return lines


class PublicResponse(SecuredResponse):
    """A document for anybody, which may be kept."""

    lines: ClassVar = SECURITY


def secured(response: Response) -> SecuredResponse:
    """Return the same response, as one that has the security headers."""
    if isinstance(response, SecuredResponse):
        return response
    return cast("SecuredResponse", SecuredResponse.force_type(response))


def finish(response: SecuredResponse, asked: Request) -> SecuredResponse:
    """Put a weak ETag on a JSON answer, and honour If-None-Match."""
    if response.content_type == JSON or response.is_json:
        digest = hashlib.sha1(response.get_data()).hexdigest()  # noqa: S324 - no secret
        response.headers["ETag"] = f'W/"{digest}"'
        known = "HTTP_IF_NONE_MATCH" in asked.environ
        if known and 200 <= response.status_code < 300 and not asked.cache_control.no_cache:
            response.make_conditional(asked)
    return response
