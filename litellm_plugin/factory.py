"""The blueprint, and a Flask application around it."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Blueprint, Flask
from werkzeug.exceptions import HTTPException

from litellm_plugin import routes
from litellm_plugin.config import ConfigError, default_paths, load_settings
from litellm_plugin.config.settings import Settings
from litellm_plugin.identity.signing import KeyStoreError
from litellm_plugin.plugin import Plugin, build
from litellm_plugin.routes import probes
from litellm_plugin.routes.error_handlers import not_served


def create_blueprint(settings: Settings | None = None) -> Blueprint:
    """Return the plugin as a blueprint, to be registered in any Flask application.

    Args:
        settings: By default those of the configuration files and the environment, as for
            :func:`create_app`.

    Raises:
        ConfigError: The configuration is faulty; the error lists every problem.
    """
    return routes.blueprint(_built(settings))


def create_app(settings: Settings | None = None) -> Flask:
    """Return a WSGI application with the plugin at ``/api/litellm``, ``/livez`` and ``/readyz``.

    Args:
        settings: By default those of the files that ``LITELLM_PLUGIN_CONFIG`` names, else of
            ``app-config.yaml`` and ``app-config.local.yaml`` in the working directory.

    Raises:
        ConfigError: The configuration is faulty; the error lists every problem.
    """
    app = Flask("litellm_plugin", static_folder=None)
    app.url_map.merge_slashes = False
    plugin = _built(settings)
    app.extensions["litellm_plugin"] = plugin
    app.register_blueprint(routes.blueprint(plugin))
    app.register_blueprint(probes.at_root(plugin))
    app.register_error_handler(HTTPException, not_served)
    return app


def _built(settings: Settings | None) -> Plugin:
    if settings is None:
        settings = load_settings(default_paths(os.environ, Path.cwd()), os.environ)
    try:
        plugin = build(settings)
    except KeyStoreError as exc:
        raise ConfigError([str(exc)]) from exc
    if plugin.store is not None:
        plugin.store.prepare()  # before workers are forked
    return plugin
