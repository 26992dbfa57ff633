"""Cross-origin requests (CORS), by ``backend.cors`` as Backstage applies it."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import translate

from flask import Request, Response

from litellm_plugin.config.settings import Cors
from litellm_plugin.routes.responses import SecuredResponse


class CrossOrigin:
    """Applies ``backend.cors``.

    Args:
        cors: The settings.
    """

    def __init__(self, cors: Cors) -> None:
        self._cors = cors
        self._allowed = _matcher(cors.origins)

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


def _matcher(globs: tuple[str, ...]) -> Callable[[str], bool]:
    pattern = re.compile("|".join(translate(glob) for glob in globs) or r"(?!)")
    return lambda origin: pattern.fullmatch(origin) is not None
