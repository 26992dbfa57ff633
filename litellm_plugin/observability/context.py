"""The request under way: its id and its trace, for answers, logs and upstreams.

The id is the client's ``X-Request-Id`` where that is fit to be logged, else the trace
id of its ``traceparent`` (https://www.w3.org/TR/trace-context/), else made.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

# In the WSGI environment.
REQUEST_ID = "litellm_plugin.request_id"
TRACE_ID = "litellm_plugin.trace_id"
ROUTE = "litellm_plugin.route"  # the rule it was found by, once it is answered

# What proxies make, and nothing that could end a line of a log or begin a markup.
_SANE_ID = re.compile(r"[A-Za-z0-9_.:=+/@-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

A = TypeVar("A")
R = TypeVar("R")


@dataclass(slots=True)
class Trace:
    """What a request is called, and the trace that it belongs to.

    Attributes:
        request_id: Fit for a header and a log.
        trace_id: 32 hexadecimal digits.
        parent: The ``traceparent`` to be passed on; "" where none came.
        state: The ``tracestate`` that belongs to it; "" for none.
    """

    request_id: str
    trace_id: str
    parent: str = ""
    state: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """The headers that pass it on."""
        # Sampled, because of whoever samples as its parent does: it would lose the call.
        parent = self.parent or f"00-{self.trace_id}-{_digits(16)}-01"
        headers = {"X-Request-Id": self.request_id, "traceparent": parent}
        if self.state:
            headers["tracestate"] = self.state
        return headers


_present: ContextVar[Trace | None] = ContextVar("trace", default=None)
present = _present.get
"""Returns the trace of the request that this thread works for; None where it is none."""


# What knows a better trace than the request itself: OpenTelemetry, where it is on.
_followed: Callable[[], tuple[str, str] | None] | None = None


def follow(traced: Callable[[], tuple[str, str] | None] | None) -> None:
    """Take traces from somebody who makes spans.

    Args:
        traced: Returns trace id and ``traceparent`` of the present span, if there is one;
            None: nobody makes spans.
    """
    global _followed  # noqa: PLW0603 - instrumentation is the process's, too
    _followed = traced


def followed() -> bool:
    """Tell whether somebody makes spans."""
    return _followed is not None


def begin(environ: dict[str, Any]) -> Trace:
    """Note that a request has come, and name it in its WSGI environment."""
    trace = _read(environ)
    environ[REQUEST_ID] = trace.request_id
    environ[TRACE_ID] = trace.trace_id
    _present.set(trace)
    return trace


def end() -> None:
    """Note that it is answered: its thread may do something else next."""
    _present.set(None)


def passed_on() -> Mapping[str, str]:
    """Return the headers that name the present request to an upstream."""
    trace = _present.get()
    return trace.headers if trace else {}


def carried(call: Callable[[A], R]) -> Callable[[A], R]:
    """Return ``call`` for other threads: what it does there is done for the present request."""
    context = copy_context()
    # A context can be entered by one thread at a time.
    return lambda argument: context.copy().run(call, argument)


def _read(environ: Mapping[str, Any]) -> Trace:
    sent = environ.get("HTTP_X_REQUEST_ID")
    asked = sent if sent and _SANE_ID.fullmatch(sent) else None
    traced = _followed() if _followed else None
    if traced:
        return Trace(asked or traced[0], *traced)
    parent = environ.get("HTTP_TRACEPARENT")
    came = _TRACEPARENT.fullmatch(parent) if parent else None
    if came is None or (came[5] and came[1] == "00"):
        trace_id = _digits(32)
        return Trace(asked or trace_id, trace_id)
    version, trace_id, span, flags, _ = came.groups()
    if version != "00":  # of a later one only this much is known
        flags = f"0{int(flags, 16) & 1}"
    state = environ.get("HTTP_TRACESTATE", "")
    return Trace(
        asked or trace_id,
        trace_id,
        f"00-{trace_id}-{span}-{flags}",
        state if _TRACESTATE.fullmatch(state) else "",
    )


def _digits(count: int) -> str:
    """Return random hexadecimal digits; they are no secret."""
    return f"{random.getrandbits(4 * count):0{count}x}"
