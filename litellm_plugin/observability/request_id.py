"""The id and the trace context of the request under way, for answers, logs and upstreams.

The id is the client's ``X-Request-Id`` where that is safe to log, else the trace id of its
``traceparent`` (https://www.w3.org/TR/trace-context/), else a new one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

# Names in the WSGI environment.
REQUEST_ID = "litellm_plugin.request_id"
TRACE_ID = "litellm_plugin.trace_id"
ROUTE = "litellm_plugin.route"  # the URL rule, once the request is answered

# Characters of ids that proxies make: no line break, no markup.
_SAFE_ID = re.compile(r"[A-Za-z0-9_.:=+/@-]{1,128}")
_TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

A = TypeVar("A")
R = TypeVar("R")


@dataclass(slots=True)
class Trace:
    """The ids of a request."""

    request_id: str  # safe in a header and a log
    trace_id: str  # 32 hexadecimal digits
    parent: str = ""  # traceparent for upstreams; "" where the client sent none
    state: str = ""  # tracestate for upstreams

    @property
    def headers(self) -> dict[str, str]:
        """The headers for a call to an upstream."""
        # "01" is sampled: with "00", an upstream that follows its caller would drop the trace.
        parent = self.parent or f"00-{self.trace_id}-{_digits(16)}-01"
        headers = {"X-Request-Id": self.request_id, "traceparent": parent}
        if self.state:
            headers["tracestate"] = self.state
        return headers


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)
current = _current.get
"""Returns the trace of the request under way in this thread; None where there is none."""

_span: Callable[[], tuple[str, str] | None] | None = None


def use_spans(span: Callable[[], tuple[str, str] | None] | None) -> None:
    """Take the trace context of requests from OpenTelemetry's spans; None: no spans are made.

    ``span`` returns trace id and ``traceparent`` of the current span, if there is one.
    """
    global _span  # noqa: PLW0603 - instrumentation is the process's, too
    _span = span


def has_spans() -> bool:
    """Tell whether spans are made."""
    return _span is not None


def begin(environ: dict[str, Any]) -> Trace:
    """Set the trace of the request that this thread begins to serve; add its ids to ``environ``."""
    trace = _read(environ)
    environ[REQUEST_ID] = trace.request_id
    environ[TRACE_ID] = trace.trace_id
    _current.set(trace)
    return trace


def end() -> None:
    """Clear the trace of the answered request."""
    _current.set(None)


def headers() -> Mapping[str, str]:
    """Return the request's ids as headers for an upstream."""
    trace = _current.get()
    return trace.headers if trace else {}


def with_context(call: Callable[[A], R]) -> Callable[[A], R]:
    """Return ``call`` for other threads, where it has the context variables of this thread."""
    context = copy_context()
    # A context can be entered by one thread at a time.
    return lambda argument: context.copy().run(call, argument)


def _read(environ: Mapping[str, Any]) -> Trace:
    sent = environ.get("HTTP_X_REQUEST_ID")
    request_id = sent if sent and _SAFE_ID.fullmatch(sent) else None
    span = _span() if _span else None
    if span:
        return Trace(request_id or span[0], *span)
    parent = environ.get("HTTP_TRACEPARENT")
    found = _TRACEPARENT.fullmatch(parent) if parent else None
    if found is None or (found[5] and found[1] == "00"):
        trace_id = _digits(32)
        return Trace(request_id or trace_id, trace_id)
    version, trace_id, span_id, flags, _ = found.groups()
    if version != "00":  # of later versions only the first flag is known
        flags = f"0{int(flags, 16) & 1}"
    state = environ.get("HTTP_TRACESTATE", "")
    return Trace(
        request_id or trace_id,
        trace_id,
        f"00-{trace_id}-{span_id}-{flags}",
        state if _TRACESTATE.fullmatch(state) else "",
    )


def _digits(count: int) -> str:
    """Return random hexadecimal digits; they are no secret."""
    return f"{random.getrandbits(4 * count):0{count}x}"
