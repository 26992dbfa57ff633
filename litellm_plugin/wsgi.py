"""The WSGI application for servers; a fault in the configuration ends the process."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from types import ModuleType

from flask import Flask

from litellm_plugin.config import ConfigError, default_paths, load_settings
from litellm_plugin.config.settings import Settings
from litellm_plugin.factory import create_app
from litellm_plugin.observability import logs

# That of the warnings about the configuration, which is guarded before this module is loaded.
_logger = logging.getLogger(ConfigError.__module__)

SPAN_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def load(paths: list[Path] | None = None, *, logs_as: str = "json") -> Flask:
    """Return the application. List every problem and end with status 2 if there are any.

    Args:
        paths: Configuration files, the later ones winning; by default those of
            ``LITELLM_PLUGIN_CONFIG`` or of the working directory.
        logs_as: The format of the logs where none is configured: ``json`` or ``text``.
    """
    try:
        files = paths or default_paths(os.environ, Path.cwd())
        settings = load_settings(files, os.environ)
        wanted = settings.service.logs
        logs.configure(wanted.format or logs_as, wanted.level, access=wanted.access)
        app = create_app(settings)
        if _tracing(settings):
            spans().instrument(app)
        return app
    except ConfigError as exc:
        if logging.root.handlers:  # logs are configured: the configuration is read again
            _logger.error("The configuration is faulty: %s", "; ".join(exc.problems))
        else:
            print(f"The configuration is faulty:\n{exc}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def _tracing(settings: Settings) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if settings.service.tracing is not None:
        return settings.service.tracing
    return any(os.environ.get(name) for name in SPAN_ENDPOINTS)


def spans() -> ModuleType:
    """Return the tracing module.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        return importlib.import_module("litellm_plugin.observability.tracing")
    except ImportError as exc:
        wanted = "needs OpenTelemetry; install litellm-plugin[otel]"
        raise ConfigError([f"litellm.service.tracing: {wanted} ({exc})"]) from exc
