"""OpenTelemetry: the standard instrumentation of Flask and requests, for our own entry points.

It needs ``litellm-plugin[otel]``. Where spans go, how many, and as which service, the standard
environment variables say (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``,
``OTEL_SERVICE_NAME``). An application that mounts the blueprint is instrumented by whoever made it.
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
# Of both generations of OpenTelemetry's conventions.
ADDRESSES = ("http.target", "http.url", "url.path", "url.full")


def instrument(app: Any, provider: TracerProvider | None = None) -> None:
    """Make spans of what an application answers, and of what this process asks by requests.

    Args:
        app: The Flask application.
        provider: Whose spans they are; that of :func:`export` by default.
    """
    # Flask's request hook comes before the attributes are set for good.
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app, response_hook=_clean, excluded_urls=PROBES, tracer_provider=provider
    )
    if not RequestsInstrumentor().is_instrumented_by_opentelemetry:  # by an application before
        RequestsInstrumentor().instrument(request_hook=_clean, tracer_provider=provider)
    request_id.use_spans(_present)


def stop(app: Any) -> None:
    """Undo :func:`instrument`."""
    request_id.use_spans(None)
    RequestsInstrumentor().uninstrument()
    FlaskInstrumentor().uninstrument_app(app)  # type: ignore[no-untyped-call]


def export() -> None:
    """Begin to send spans; in each process by itself, as a thread does it."""
    named = OTELResourceDetector().detect().attributes.get("service.name")
    resource = Resource.create({} if named else {"service.name": SERVICE})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def _clean(span: trace.Span, *_: Any) -> None:
    """Take queries and secrets out of what the instrumentation tells of addresses."""
    known = getattr(span, "attributes", None) or {}
    told = {name: str(known[name]).partition("?")[0] for name in ADDRESSES if name in known}
    told.update({name: "" for name in ("url.query",) if name in known})
    span.set_attributes({name: redact(value) for name, value in told.items()})


def _present() -> tuple[str, str] | None:
    """Return trace id and ``traceparent`` of the present span; None where there is none."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    trace_id = trace.format_trace_id(span.trace_id)
    span_id = trace.format_span_id(span.span_id)
    return trace_id, f"00-{trace_id}-{span_id}-{span.trace_flags:02x}"
