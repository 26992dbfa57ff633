"""Logs: one line for each record, printable, and without secrets.

The log has ids, user names and LiteLLM's texts in it, which other people choose. A line break
would forge a line, and an escape sequence move the reader's cursor. :func:`add_filters` filters
the records of this package, also in an application that mounts the blueprint. The formatters are
for our own entry points: JSON in production, text in development.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from typing import Any

import orjson
from pythonjsonlogger.orjson import OrjsonFormatter

from litellm_plugin.observability import request_id
from litellm_plugin.redaction import redact

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


def printable(text: str) -> str:
    """Return ``text`` with line breaks and characters that can't be printed escaped.

    Escapes are those of JSON, so that a line of JSON remains JSON.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    escaped = json.dumps(char)[1:-1]
    return escaped if escaped != char else f"\\u{ord(char):04x}"  # DEL, which JSON does not escape


def add_filters() -> None:
    """Filter the records of all loggers of the package that exist.

    A logger's filter does not see the records of its children, and handlers are not ours.
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
        """Return the line; not by orjson where a text has half a surrogate pair."""
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
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text, its request's id in it."""
        if not hasattr(record, "request_id"):
            trace = request_id.current()
            record.request_id = trace.request_id if trace else "-"
        return redact(super().format(record))


_style = "json"


def formatter() -> logging.Formatter:
    """Return a formatter for the format of this process's logs; see :func:`configure`."""
    return JsonFormatter() if _style == "json" else TextFormatter()


def configure(style: str, level: str, *, access: bool = True) -> None:
    """Log to standard error, in one format.

    Args:
        style: ``json`` or ``text``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        access: Whether each request has a line.
    """
    global _style  # noqa: PLW0603 - logging is configured for the process, too
    _style = style
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    ACCESS.setLevel(logging.INFO if access else logging.CRITICAL)
    # gunicorn's loggers have handlers of their own, for the files that its settings name.
    for name in ("gunicorn.error", "gunicorn.access"):
        for other in logging.getLogger(name).handlers:
            other.setFormatter(handler.formatter)


def access(message: str, facts: dict[str, Any]) -> None:
    """Log the line of a request; the caller has checked that ``ACCESS`` is enabled.

    Args:
        message: The line as text.
        facts: The fields of the line as JSON.
    """
    if not write_directly(ACCESS, logging.INFO, redact(message), facts):
        ACCESS.info("%s", message, extra=facts)


def write_directly(log: logging.Logger, level: int, message: str, facts: dict[str, Any]) -> bool:
    """Write the line that ``logging`` would write, if it is as :func:`configure` left it.

    A third of the time that a record, its filters and its formatter take: that is a seventh of a
    short request, and each request has a line.

    Args:
        log: The logger.
        level: The level.
        message: One line without secrets.
        facts: Other fields, without secrets.

    Returns:
        False where nothing was written, because there are other handlers, formatters or levels.
    """
    match logging.root.handlers:
        case [logging.StreamHandler(formatter=JsonFormatter(), level=0) as handler]:
            pass
        case _:
            return False
    if not log.isEnabledFor(level) or not _only_root_handles(log):
        return False
    line = {
        "time": datetime.now(UTC),
        "level": logging.getLevelName(level),
        "logger": log.name,
        "message": message,
        **facts,
    }
    trace = request_id.current()
    if trace is not None:
        line.setdefault("request_id", trace.request_id)
        line.setdefault("trace_id", trace.trace_id)
    try:
        text = printable(orjson.dumps(line).decode())
    except orjson.JSONEncodeError:  # half a surrogate pair
        return False
    with handler.lock or nullcontext(), suppress(OSError, ValueError):  # it may be closed
        handler.stream.write(f"{text}\n")
        handler.flush()
    return True


def _only_root_handles(log: logging.Logger) -> bool:
    while log.parent is not None:
        if log.handlers or not log.propagate:
            return False
        log = log.parent
    return True
