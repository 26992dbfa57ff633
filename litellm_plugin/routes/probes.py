"""Health for orchestrators, without credentials: below the mount, and at the root of our own app.

``/livez`` tells that the process answers. ``/readyz`` tells whether requests should be
sent here (:mod:`litellm_plugin.observability.readiness`), and names the parts that do not do
their work; nobody is told where they are.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from litellm_plugin.plugin import Plugin
from litellm_plugin.routes.web import Routes, json_response, plugin

OPEN_PATHS = ("/livez", "/readyz")
BACKSTAGE = "/.backstage/health/v1"

routes = Routes()


@routes.get("/livez")
def livez() -> dict[str, Any]:
    return {"status": "ok"}


@routes.get("/readyz")
def readyz() -> Response:
    return _readiness(plugin)


def at_root(plugin: Plugin) -> Blueprint:
    """Return the same for the root of an application that serves nothing else.

    Backstage has its own at the root of its backends, under other names.
    """
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
