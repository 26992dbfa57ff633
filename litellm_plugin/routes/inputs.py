"""Reads a request's caller, body, query parameters and dates for its view."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request

from litellm_plugin.accounts.caller import Caller
from litellm_plugin.clock import is_day
from litellm_plugin.errors import BadRequest, Unauthenticated, UpstreamError, UsageUnavailable
from litellm_plugin.identity.principal import Principal, ServicePrincipal
from litellm_plugin.routes.request_state import plugin, state

_OFFSET = re.compile(r"[+-]?[0-9]{1,3}")


def principal() -> Principal:
    """Return the principal of the request's credentials.

    Raises:
        Unauthenticated: The route needs no credentials.
    """
    known = state().principal
    if known is None:
        raise Unauthenticated("Missing credentials")
    return known


def current_caller() -> Caller:
    """Return the caller of this request; a service acts for ``?user_id=``."""
    known = state()
    if known.caller is None:
        who = principal()
        asked = query("user_id") if isinstance(who, ServicePrincipal) else ""
        known.caller = plugin.caller(who, asked or None)
    return known.caller


def set_actor(name: str) -> None:
    """Set the caller's name on a route that verifies its own tokens, and count a change.

    Raises:
        TooManyRequests: The caller has made too many changes.
    """
    known = state()
    known.actor = name
    if known.event is not None:
        plugin.rate_limits.write(name, service=False)


def body() -> dict[str, Any]:
    """Return the JSON object of the request; ``{}`` where there is none."""
    value = state().body
    return value if isinstance(value, dict) else {}


def query(name: str) -> str:
    """Return a query parameter; "" where it is absent.

    Raises:
        BadRequest: The parameter is given more than once.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise BadRequest(f"{name} is given more than once")
    return values[0] if values else ""


def queries() -> dict[str, str]:
    """Return every query parameter, each as :func:`query` does."""
    return {name: query(name) for name in request.args}


@contextmanager
def dates() -> Iterator[tuple[str, str]]:
    """Yield ``start_date`` and ``end_date`` to a block that reads usage from LiteLLM.

    A period that ends today in the caller's ``timezone`` is extended to today in UTC.

    Raises:
        BadRequest: A date is missing, or is no day and LiteLLM refused it; or ``timezone`` is no
            number of minutes.
        UsageUnavailable: LiteLLM is down.
    """
    start, end = query("start_date"), query("end_date")
    if not start or not end:
        raise BadRequest("start_date and end_date are required")
    offset = _timezone()
    if offset is not None and is_day(end):
        now = datetime.now(UTC)
        if end >= (now - offset).date().isoformat():
            end = max(end, now.date().isoformat())
    try:
        yield start, end
    except UpstreamError as exc:
        # LiteLLM accepts other spellings of days, so days are judged only after a refusal.
        if exc.answered in {400, 422} and not (is_day(start) and is_day(end)):
            raise BadRequest("start_date and end_date must be days, YYYY-MM-DD") from exc
        # 401 and 403 are about the master key, 429 about its rate limit.
        if exc.down or exc.answered in {401, 403, 422, 429}:
            raise UsageUnavailable(
                f"LiteLLM can't be asked for the usage: {exc.message}", advice=exc.advice
            ) from exc
        raise


def with_timezone(report: dict[str, Any]) -> dict[str, Any]:
    """Return a usage report; if the query has ``timezone``, with ``timezone: UTC``.

    LiteLLM adds usage up by UTC days, so the days are UTC days whatever the query says.
    """
    return report if _timezone() is None else {**report, "timezone": "UTC"}


def _timezone() -> timedelta | None:
    """Return ``timezone``: the caller's offset behind UTC, as JavaScript's ``getTimezoneOffset``.

    Raises:
        BadRequest: The value is no number of minutes.
    """
    text = query("timezone")
    if not text:
        return None
    if not _OFFSET.fullmatch(text) or not -14 * 60 <= int(text) <= 12 * 60:
        raise BadRequest(
            f"timezone: got {text[:20]!r}, wanted minutes behind UTC, from -840 (UTC+14) to 720"
            " (UTC-12), such as 300 for UTC-5"
        )
    return timedelta(minutes=int(text))


def client_gone() -> bool:
    """Tell whether the client has closed the connection; False where the server does not say.

    False does not promise that the answer arrives: the client may still hang up.
    """
    sock = request.environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket) or isinstance(sock, ssl.SSLSocket):
        return False
    limit = sock.gettimeout()
    sock.settimeout(0)
    try:
        return sock.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        with suppress(OSError):
            sock.settimeout(limit)
