"""The HTTP surface; the only folder that knows Flask."""

from flask import Blueprint

from litellm_plugin.plugin import Plugin
from litellm_plugin.routes import (
    audit,
    backstage,
    bridge,
    keys,
    openapi,
    opencode,
    probes,
    system,
    team_admin,
    users,
    web,
)


def blueprint(plugin: Plugin) -> Blueprint:
    """Return a blueprint with every route of ``plugin``."""
    bp = Blueprint("litellm", __name__, url_prefix="/api/litellm")
    bridged = bridge.OPEN_PATHS if plugin.settings.bridge.enabled else ()
    web.install(bp, plugin, open_paths=(backstage.JWKS_PATH, *probes.OPEN_PATHS, *bridged))
    for module in (
        *(system, openapi, users, keys, team_admin, audit, opencode, bridge, backstage),
        probes,
    ):
        module.routes.register(bp)
    return bp
