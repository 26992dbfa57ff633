"""Logs: one line for each record, printable, and without secrets.

A line break in a client's text could forge a record, an escape sequence could move the cursor.
:func:`add_filters` filters this package's records in any application; the formatters are for the
service's own entry points.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import orjson
from pythonjsonlogger.orjson import OrjsonFormatter

from litellm_plugin.observability import request_id
from litellm_plugin.redaction import printable, redact

TEXT = "%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"

ACCESS = logging.getLogger("litellm_plugin.access")

PACKAGE = "litellm_plugin"


class Printable(logging.Filter):
    """Redacts and escapes messages; drops none.

    Line breaks of the format string are kept, and the lines after the first indented.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message where it has a secret or is not printable."""
        message = record.getMessage()
        safe = redact(message)
        lines = safe.split("\n") if "\n" in str(record.msg) else [safe]
        safe = "\n    ".join(map(printable, lines))
        if safe != message:
            record.msg, record.args = safe, None
        return True


_PRINTABLE = Printable()


def add_filters() -> None:
    """Filter the records of all loggers of the package that exist.

    A logger's filter does not see its children's records, and the application owns the handlers.
    """
    for name in [PACKAGE, *logging.root.manager.loggerDict]:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            logging.getLogger(name).addFilter(_PRINTABLE)


class JsonFormatter(OrjsonFormatter):
    """One line of JSON for each record, tracebacks included, without secrets."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="time",
        )

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line; orjson refuses lone surrogates, json does not."""
        try:
            return printable(super().jsonify_log_record(log_data))
        except orjson.JSONEncodeError:
            return json.dumps(log_data, separators=(",", ":"), default=str)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Add the request's ids, and redact free text."""
        if audit := log_data.pop("audit", None):
            # The journal's message is the same event as text.
            log_data.update(message=audit.get("eventId"), audit=audit)
        trace = request_id.current()
        if trace is not None:
            log_data.setdefault("request_id", trace.request_id)
            log_data.setdefault("trace_id", trace.trace_id)
        for name in ("message", "exception", "stack_info"):
            if isinstance(log_data.get(name), str):
                log_data[name] = redact(log_data[name])
        return {"time": log_data.pop("time"), **log_data}


class TextFormatter(logging.Formatter):
    """Human-readable lines."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, with the request's id."""
        if not hasattr(record, "request_id"):
            trace = request_id.current()
            record.request_id = trace.request_id if trace else "-"
        return redact(super().format(record))


_style = "json"


def formatter() -> logging.Formatter:
    """Return a formatter for the format of this process's logs; see :func:`configure`."""
    return JsonFormatter() if _style == "json" else TextFormatter()


def configure(style: str, level: str, *, access: bool = True) -> None:
    """Log to standard error, as ``json`` or ``text``; ``access`` adds a line for each request."""
    global _style  # noqa: PLW0603 - logging is configured for the process, too
    _style = style
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Alembic logs each of its plugins and connections at INFO.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    ACCESS.setLevel(logging.INFO if access else logging.CRITICAL)
    # gunicorn's loggers have handlers of their own, for the files that its settings name.
    for name in ("gunicorn.error", "gunicorn.access"):
        for other in logging.getLogger(name).handlers:
            other.setFormatter(handler.formatter)
