"""Spans of requests and of what they ask, by OpenTelemetry's own instrumentation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from tests.client import PluginClient
from tests.fakes import FakeLiteLLM

pytest.importorskip("opentelemetry.instrumentation.flask", reason="litellm-plugin[otel] is missing")

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from litellm_plugin.observability import tracing as spans

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEY = "1" * 64

Headers = dict[str, str]


@pytest.fixture
def made(app: Flask) -> Iterator[InMemorySpanExporter]:
    """What spans were made of ``app`` and its calls."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans.instrument(app, provider)
    yield exporter
    spans.stop(app)
    provider.shutdown()


@pytest.fixture
def client(
    made: InMemorySpanExporter, app: Flask, client_of: Callable[[Flask], PluginClient]
) -> PluginClient:
    return client_of(app)


def by_kind(made: InMemorySpanExporter, kind: SpanKind) -> list[ReadableSpan]:
    return [span for span in made.get_finished_spans() if span.kind is kind]


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_and_its_calls_are_one_trace(
    client: PluginClient, known: FakeLiteLLM, made: InMemorySpanExporter
) -> None:
    parent = f"00-{TRACE}-{SPAN}-01"
    answer = client.get("/user/info?a=b", who="bob", headers={"traceparent": parent})
    assert answer.headers["X-Request-Id"] == TRACE
    served = by_kind(made, SpanKind.SERVER)[-1]
    (asked,) = [
        span
        for span in by_kind(made, SpanKind.CLIENT)
        if told(span)["http.url"].endswith(":4787/v2/user/info")
    ]
    assert {format_trace_id(span.context.trace_id) for span in (served, asked)} == {TRACE}
    assert served.parent is not None
    assert format_span_id(served.parent.span_id) == SPAN
    assert asked.parent is not None
    assert asked.parent.span_id == served.context.span_id
    assert told(served)["http.route"] == "/api/litellm/user/info"
    # LiteLLM is told of the span that asks it.
    span_id = format_span_id(asked.context.span_id)
    assert known.calls[-1].headers["traceparent"] == f"00-{TRACE}-{span_id}-01"


def test_a_span_names_the_route_as_the_documentation_does(
    client: PluginClient, known: FakeLiteLLM, made: InMemorySpanExporter
) -> None:
    known.post("/key/delete", json={})
    route = "/api/litellm/keys/<litellm_id:token>"
    for path in (f"/keys/{KEY}", f"/keys/{KEY}/"):
        client.delete(path, who="bob")
        served = by_kind(made, SpanKind.SERVER)[-1]
        assert (served.name, told(served)["http.route"]) == (f"DELETE {route}", route)


def test_a_request_without_an_id_is_named_like_its_trace(
    client: PluginClient, made: InMemorySpanExporter
) -> None:
    name = client.get("/health", who="bob").headers["X-Request-Id"]
    assert format_trace_id(by_kind(made, SpanKind.SERVER)[-1].context.trace_id) == name


def test_calls_side_by_side_belong_to_the_request(
    client: PluginClient, litellm: FakeLiteLLM, made: InMemorySpanExporter
) -> None:
    teams = [{"team_id": f"t{number}"} for number in range(3)]
    litellm.get(
        "/user/info",
        json={
            "user_id": "bob@example.com",
            "user_info": {"user_id": "bob@example.com"},
            "teams": teams,
        },
    )
    litellm.get("/team/info", json={"team_info": {"team_id": "t"}})
    client.get("/teams", who="bob")
    served = by_kind(made, SpanKind.SERVER)[-1]
    asked = [
        span
        for span in by_kind(made, SpanKind.CLIENT)
        if told(span)["http.url"].endswith("/team/info")
    ]
    assert len(asked) == 3
    assert {span.parent and span.parent.span_id for span in asked} == {served.context.span_id}


def test_no_secret_and_no_query_is_told(
    client: PluginClient, known: FakeLiteLLM, made: InMemorySpanExporter
) -> None:
    known.post(f"/key/{KEY}/reset_spend", json={})
    client.post(f"/keys/{KEY}/reset_spend?token=mine", who="bob")
    assert known.calls[-1].path == f"/key/{KEY}/reset_spend"
    assert len(made.get_finished_spans()) > 2
    for span in made.get_finished_spans():
        everything = f"{span.name} {told(span)} {[event.attributes for event in span.events]}"
        for secret in (KEY, "mine", "user_id=", "eyJ", "Bearer"):
            assert secret not in everything


def test_probes_have_no_span(app: Flask, client: PluginClient, made: InMemorySpanExporter) -> None:
    PluginClient(app, mount="").get("/livez")
    client.get("/livez")
    assert by_kind(made, SpanKind.SERVER) == []


@pytest.fixture
def known(litellm: FakeLiteLLM) -> FakeLiteLLM:
    own = [{"token": KEY, "key_name": "sk-...aaaa"}]
    info = {"user_id": "bob@example.com", "user_info": {"user_id": "bob@example.com"}, "keys": own}
    litellm.get("/user/info", json=info)
    return litellm
