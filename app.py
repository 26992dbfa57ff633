"""The application: ``gunicorn app:app`` serves it, ``python app.py`` runs it in development."""

from __future__ import annotations

import argparse
from pathlib import Path

from prometheus_client import start_http_server

from litellm_plugin.observability import request_id
from litellm_plugin.wsgi import load, spans


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
    app = load(arguments.config, logs_as="text")
    metrics_bind = app.extensions["litellm_plugin"].settings.service.metrics_bind
    if metrics_bind is not None:
        host, port = metrics_bind
        start_http_server(port, host)
    if request_id.has_spans():
        spans().export()
    app.run(arguments.host, arguments.port, threaded=True)


if __name__ == "__main__":
    main()
else:
    app = load()
