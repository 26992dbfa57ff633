"""Logs: one line for each event, printable, and without secrets.

Ids, user names and LiteLLM's texts are in the log, and other people choose them. A line break in
one would begin a line that looks like one of ours; an escape sequence would move the reader's
cursor. :func:`guard` filters every record of this package, also in an application that mounts
the blueprint. The formatters are for our own entry points: JSON in production, text in
development.
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
    """Lets everything through, and nothing that would not be printed as it is.

    Only a message that was written with several lines keeps them, all but the first indented.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message where it needs it."""
        message = record.getMessage()
        said = redact(message)
        lines = said.split("\n") if "\n" in str(record.msg) else [said]
        said = "\n    ".join(map(printable, lines))
        if said != message:
            record.msg, record.args = said, None
        return True


_PRINTABLE = Printable()


def printable(text: str) -> str:
    """Return ``text`` with escapes in the place of what ends a line or can't be printed.

    They are those of JSON: a line that is some stays it.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    escaped = json.dumps(char)[1:-1]
    return escaped if escaped != char else f"\\u{ord(char):04x}"  # DEL, which JSON lets be


def guard() -> None:
    """Put the filter on every logger of the package that there is.

    A filter of a parent does not see what its children log, and handlers are not ours.
    """
    for name in [PACKAGE, *logging.root.manager.loggerDict]:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            logging.getLogger(name).addFilter(_PRINTABLE)


class JsonFormatter(OrjsonFormatter):
    """One line of JSON for each record, tracebacks included; no secret in it."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="time",
        )

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line, which orjson can't where somebody's text holds half a surrogate pair."""
        try:
            return printable(super().jsonify_log_record(log_data))
        except orjson.JSONEncodeError:
            return json.dumps(log_data, separators=(",", ":"), default=str)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Say of which request it is, and take secrets out of what is free text."""
        if audit := log_data.pop("audit", None):
            # The journal's message is the same once more, as text.
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


_style = "json"  # until somebody chooses


def formatter() -> logging.Formatter:
    """Return a formatter of the form that all logs of this process have."""
    return JsonFormatter() if _style == "json" else TextFormatter()


def configure(style: str, level: str, *, access: bool = True) -> None:
    """Let all that is logged go to standard error in one form.

    Args:
        style: ``json`` or ``text``.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        access: Whether each request has a line.
    """
    global _style  # noqa: PLW0603 - so is what is logged
    _style = style
    form = formatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(form)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    ACCESS.setLevel(logging.INFO if access else logging.CRITICAL)
    # gunicorn's loggers have handlers of their own, to the files that its settings name.
    for name in ("gunicorn.error", "gunicorn.access"):
        for other in logging.getLogger(name).handlers:
            other.setFormatter(form)


def access(message: str, facts: dict[str, Any]) -> None:
    """Log the line of a request, for those who know that ``ACCESS`` is enabled.

    Args:
        message: As text.
        facts: The same for machines, and more; fit for JSON.
    """
    if not at_once(ACCESS, logging.INFO, redact(message), facts):
        ACCESS.info("%s", message, extra=facts)


def at_once(log: logging.Logger, level: int, message: str, facts: dict[str, Any]) -> bool:
    """Write a line as it would come out of ``logging``, where that is as :func:`configure` left it.

    What a record, its filters and its formatter come to costs a seventh of a short request,
    and each request has a line.

    Args:
        log: Whose line it is.
        level: Of ``logging``.
        message: Of one line, with no secret in it.
        facts: Fields beside it, with no secret in them.

    Returns:
        Whether that was done; else it is for ``logging`` to do.
    """
    match logging.root.handlers:
        case [logging.StreamHandler(formatter=JsonFormatter(), level=0) as handler]:
            pass
        case _:
            return False
    if not log.isEnabledFor(level) or not _goes_straight_to_the_root(log):
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


def _goes_straight_to_the_root(log: logging.Logger) -> bool:
    while log.parent is not None:
        if log.handlers or not log.propagate:
            return False
        log = log.parent
    return True
