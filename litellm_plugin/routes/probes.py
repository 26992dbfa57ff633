"""Health for orchestrators, without credentials: below the mount, and at the root of our own app.

``/livez`` tells that the process answers. ``/readyz`` tells whether requests should be sent here
(:mod:`litellm_plugin.observability.readiness`), and names the upstreams that are down, without
their addresses.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from litellm_plugin.plugin import Plugin
from litellm_plugin.routes.request_state import plugin
from litellm_plugin.routes.responses import json_response
from litellm_plugin.routes.routing import routes

BACKSTAGE = "/.backstage/health/v1"


@routes.get("/livez", exempt=True)
def livez() -> dict[str, Any]:
    return {"status": "ok"}


@routes.get("/readyz", exempt=True)
def readyz() -> Response:
    return _readiness(plugin)


def at_root(plugin: Plugin) -> Blueprint:
    """Return the probes for the root of our own application, under Backstage's names, too."""
    bp = Blueprint("probes", __name__)

    def alive() -> Response:
        return json_response(livez())

    def ready() -> Response:
        return _readiness(plugin)

    def ready_as_backstage_is() -> Response:
        if plugin.readiness.report().ready:
            return json_response(livez())
        not_yet = {"message": "Not ready to serve requests", "status": "error"}
        return json_response(not_yet, 503)

    for path, view in (
        ("/livez", alive),
        ("/readyz", ready),
        (f"{BACKSTAGE}/liveness", alive),
        (f"{BACKSTAGE}/readiness", ready_as_backstage_is),
    ):
        bp.add_url_rule(
            path,
            endpoint=path.strip("/").replace(".", "").replace("/", "_"),
            view_func=view,
            methods=["GET"],
            provide_automatic_options=False,
            strict_slashes=False,
        )
    return bp


def _readiness(plugin: Plugin) -> Response:
    report = plugin.readiness.report()
    status = "ok" if report.ready else "error"
    return json_response({"status": status, "checks": report.checks}, 200 if report.ready else 503)
