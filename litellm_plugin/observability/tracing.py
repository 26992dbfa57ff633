"""OpenTelemetry's standard instrumentation of Flask and requests, for our own entry points.

It needs ``litellm-plugin[otel]``, and is configured by the standard environment variables
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME``). An application
that mounts the blueprint brings its own instrumentation.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from litellm_plugin.observability import request_id
from litellm_plugin.redaction import redact

PROBES = "/livez,/readyz,/health/v1/"
SERVICE = "litellm-plugin"
# Attributes by OpenTelemetry's old and new conventions.
ADDRESSES = ("http.target", "http.url", "url.path", "url.full")


def instrument(app: Any, provider: TracerProvider | None = None) -> None:
    """Make spans of a Flask application's requests, and of this process's calls to upstreams.

    ``provider`` is by default the global one, which :func:`export` sets.
    """
    # At the request hook of Flask's instrumentation, attributes are not yet complete.
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app, response_hook=_clean, excluded_urls=PROBES, tracer_provider=provider
    )
    if not RequestsInstrumentor().is_instrumented_by_opentelemetry:  # as by an earlier application
        RequestsInstrumentor().instrument(request_hook=_clean, tracer_provider=provider)
    request_id.use_spans(_span_context)


def stop(app: Any) -> None:
    """Undo :func:`instrument`."""
    request_id.use_spans(None)
    RequestsInstrumentor().uninstrument()
    FlaskInstrumentor().uninstrument_app(app)  # type: ignore[no-untyped-call]


def export() -> None:
    """Begin to send spans, from a thread; to be called in each process."""
    named = OTELResourceDetector().detect().attributes.get("service.name")
    resource = Resource.create({} if named else {"service.name": SERVICE})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _clean(span: trace.Span, *_: Any) -> None:
    """Remove queries and secrets from the span's attributes."""
    attributes = getattr(span, "attributes", None) or {}
    for name in ADDRESSES:
        if name in attributes:
            span.set_attribute(name, redact(str(attributes[name]).partition("?")[0]))
    if "url.query" in attributes:
        span.set_attribute("url.query", "")


def _span_context() -> tuple[str, str] | None:
    """Return trace id and ``traceparent`` of the current span; None where there is none."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    trace_id = trace.format_trace_id(span.trace_id)
    span_id = trace.format_span_id(span.span_id)
    return trace_id, f"00-{trace_id}-{span_id}-{span.trace_flags:02x}"
