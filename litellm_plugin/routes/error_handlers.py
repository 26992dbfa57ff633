"""Turns every error into a JSON response."""

from __future__ import annotations

import logging
import traceback

from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from litellm_plugin.errors import (
    NotFound,
    NotVerifiable,
    PluginError,
    TooManyRequests,
)
from litellm_plugin.identity.keycloak import BridgeNotVerifiable
from litellm_plugin.observability import metrics
from litellm_plugin.redaction import redact
from litellm_plugin.routes.address import client_network
from litellm_plugin.routes.request_state import plugin, state
from litellm_plugin.routes.responses import json_response

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def install(blueprint: Blueprint) -> None:
    """Register the handlers on a blueprint, and a route for unknown paths."""
    blueprint.register_error_handler(PluginError, refused)
    blueprint.register_error_handler(HTTPException, not_served)
    blueprint.register_error_handler(Exception, broken)
    for rule in ("/", "/<litellm_id:_path>"):
        blueprint.add_url_rule(
            rule,
            view_func=unknown_route,
            methods=METHODS,
            provide_automatic_options=False,
            strict_slashes=False,
        )


def unknown_route(_path: str = "") -> Response:
    """Answer an unknown path, which needs credentials like every route."""
    raise NotFound


def not_served(error: HTTPException) -> Response:
    """Answer an error of Flask itself."""
    return json_response({"error": error.name}, error.code or 500)


def refused(error: PluginError) -> Response:
    """Answer an error of this package, and count invalid tokens."""
    if _is_failed_token(error):
        try:
            plugin.rate_limits.failed_token(
                client_network(request.environ, plugin.settings.service.trusted_proxies)
            )
        except TooManyRequests as exc:
            error = exc
    state().error = error
    metrics.refused(error)
    response = json_response(error.body(request.method, _url_below_mount()), error.status)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def broken(error: Exception) -> Response:
    """Answer an unexpected exception with 500, and log its traceback."""
    state().error = error
    # Not exc_info: a traceback ends with the error's text, which may quote a secret.
    trace = redact("".join(traceback.format_exception(error)))
    log.error("%s %s failed\n%s", request.method, request.url_rule, trace.rstrip())
    return json_response({"error": "Internal server error"}, 500)


def _is_failed_token(error: PluginError) -> bool:
    known = state()
    if error.status != 401 or known.principal is not None or known.actor is not None:
        return False
    if isinstance(error, NotVerifiable | BridgeNotVerifiable):
        return False
    return bool(request.headers.get("Authorization", "").strip())


def _url_below_mount() -> str:
    """Return path and query below the mount, as the client sent them."""
    path, query = state().path, request.query_string.decode("latin-1")
    return f"{path}?{query}" if query else path
