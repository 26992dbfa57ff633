"""gunicorn's logger (``logger_class``): a line for each request, in the format of all our logs."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from gunicorn.glogging import Logger as GunicornLogger

from litellm_plugin.observability import logs
from litellm_plugin.observability.request_id import REQUEST_ID, ROUTE, TRACE_ID
from litellm_plugin.redaction import redact

MAX_PATH = 200  # characters of a path without a route
PROBES = frozenset({"/livez", "/readyz"})  # asked every few seconds; logged when they fail


class Logger(GunicornLogger):  # type: ignore[misc]  # it has no types
    """gunicorn's own logger, in the format of ``logs.configure``; JSON until that is called."""

    def setup(self, cfg: Any) -> None:
        """Make gunicorn's handlers; called again when gunicorn reloads."""
        super().setup(cfg)
        formatter = logs.formatter()
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(formatter)

    def access(self, resp: Any, req: Any, environ: Any, request_time: timedelta) -> None:  # noqa: ARG002 - gunicorn's names
        """Write the line of a request, with its route or else its path, and never its query."""
        log = self.access_log if self.cfg.accesslog else logs.ACCESS
        if log.getEffectiveLevel() > logging.INFO:
            return
        status = int(str(resp.status).partition(" ")[0])
        route = environ.get(ROUTE)
        path = environ.get("PATH_INFO", "")
        if status < 400 and path in PROBES:
            return
        where = route or repr(redact(path[:MAX_PATH]))
        facts = {
            "method": environ.get("REQUEST_METHOD"),
            "route": route,
            "status": status,
            "duration_ms": round(request_time.total_seconds() * 1000, 1),
            "bytes": getattr(resp, "sent", None),
            "request_id": environ.get(REQUEST_ID),
            "trace_id": environ.get(TRACE_ID),
        }
        known = {name: value for name, value in facts.items() if value is not None}
        log.info("%s %s %s", facts["method"], where, status, extra=known)
