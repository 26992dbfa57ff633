"""The HTTP routes; the only folder that uses Flask."""

from flask import Blueprint

from litellm_plugin.plugin import Plugin
from litellm_plugin.routes import (  # noqa: F401 - importing a module adds its routes
    backstage,
    bridge,
    error_handlers,
    keys,
    openapi,
    probes,
    system,
    team_admin,
    team_keys,
    users,
)
from litellm_plugin.routes.pipeline import Pipeline
from litellm_plugin.routes.routing import routes


def blueprint(plugin: Plugin) -> Blueprint:
    """Return a blueprint with every route of ``plugin``."""
    bp = Blueprint("litellm", __name__, url_prefix="/api/litellm")
    # While the bridge is off, its paths need credentials, like unknown paths.
    bridged = plugin.settings.bridge.enabled
    exempt = {
        route.rule
        for route in routes
        if route.exempt and (bridged or not route.rule.startswith("/bridge/"))
    }
    Pipeline(plugin, bp.url_prefix or "", tuple(exempt)).install(bp)
    routes.register(bp)
    error_handlers.install(bp)
    return bp
