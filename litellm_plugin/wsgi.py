"""The WSGI application as it is served; a fault in the configuration ends the process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flask import Flask

from litellm_plugin.config import ConfigError, default_paths, load_settings
from litellm_plugin.factory import create_app
from litellm_plugin.telemetry import logs


def load(paths: list[Path] | None = None, *, logs_as: str = "json") -> Flask:
    """Return the application, or end the process with status 2 and every problem listed.

    Args:
        paths: Configuration files, the later ones winning; by default those of
            ``LITELLM_PLUGIN_CONFIG`` or of the working directory.
        logs_as: The form of the logs, unless it is configured: ``json`` or ``text``.
    """
    try:
        files = paths or default_paths(os.environ, Path.cwd())
        settings = load_settings(files, os.environ)
        told = settings.service.logs
        logs.configure(told.format or logs_as, told.level, access=told.access)
        return create_app(settings)
    except ConfigError as exc:
        print(f"The configuration is faulty:\n{exc}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
