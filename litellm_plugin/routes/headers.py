"""What Backstage's HTTP layer puts on every answer."""

from __future__ import annotations

from flask import Blueprint, Response, request

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


def install(blueprint: Blueprint) -> None:
    """Put security headers and a weak ETag on every answer, and honour If-None-Match."""

    @blueprint.after_request
    def finish(response: Response) -> Response:
        response.headers.update(SECURITY)
        if response.is_json:
            response.add_etag(weak=True)
            if 200 <= response.status_code < 300 and not request.cache_control.no_cache:
                response.make_conditional(request)
        return response
