"""The application: ``gunicorn app:app`` serves it, ``python app.py`` runs it in development."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from flask import Flask

from litellm_plugin import create_app
from litellm_plugin.config import ConfigError, default_paths, load_settings


def load(paths: list[Path] | None = None) -> Flask:
    """Return the application, or end the process with status 2 and every problem listed.

    Args:
        paths: Configuration files, the later ones winning; by default those of
            ``LITELLM_PLUGIN_CONFIG`` or of the working directory.
    """
    try:
        files = paths or default_paths(os.environ, Path.cwd())
        return create_app(load_settings(files, os.environ))
    except ConfigError as exc:
        print(f"The configuration is faulty:\n{exc}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def main() -> None:
    """Run the development server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config",
        action="append",
        type=Path,
        metavar="FILE",
        help="configuration file; may be given several times, the later ones winning",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    load(arguments.config).run(arguments.host, arguments.port, threaded=True)


if __name__ == "__main__":
    main()
else:
    app = load()
