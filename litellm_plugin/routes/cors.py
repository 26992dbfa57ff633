"""Cross-origin requests, by ``backend.cors`` as Backstage applies it."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate

from flask import Blueprint, Response, request

from litellm_plugin.config.settings import Cors


def install(blueprint: Blueprint, cors: Cors) -> None:
    """Answer preflights ahead of the barrier, and mark answers for allowed origins."""
    allowed = _matcher(cors.origins)

    @blueprint.before_request
    def answer_preflight() -> Response | None:
        if request.method != "OPTIONS" or not allowed(request.headers.get("Origin", "")):
            return None
        response = Response(status=204)
        del response.headers["Content-Type"]
        response.headers["Access-Control-Allow-Methods"] = ",".join(cors.methods)
        asked = request.headers.get("Access-Control-Request-Headers")
        if cors.allowed_headers is not None:
            response.headers["Access-Control-Allow-Headers"] = ",".join(cors.allowed_headers)
        else:
            response.vary.add("Access-Control-Request-Headers")
            if asked:
                response.headers["Access-Control-Allow-Headers"] = asked
        if cors.max_age is not None:
            response.access_control_max_age = cors.max_age
        return response

    @blueprint.after_request
    def name_origin(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.headers.get("Origin", "")
        if allowed(origin):
            response.access_control_allow_origin = origin
            response.access_control_allow_credentials = cors.credentials
            if cors.exposed_headers:
                response.headers["Access-Control-Expose-Headers"] = ",".join(cors.exposed_headers)
        return response


def _matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    pattern = re.compile("|".join(translate(glob) for glob in globs) or r"(?!)")
    return lambda origin: pattern.fullmatch(origin) is not None
