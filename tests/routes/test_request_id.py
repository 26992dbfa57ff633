"""The id of a request: taken or made, returned, and told to whoever is asked for it."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from flask import Flask, request

from litellm_plugin import create_blueprint
from litellm_plugin.config.settings import Settings
from litellm_plugin.observability import request_id
from tests.client import HeadersOf, PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM
from tests.fakes.network import Asked, Reply
from tests.routes.conftest import Account

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-00"


def returned(client: PluginClient, headers: dict[str, str] | None = None) -> str:
    return client.get("/health", who="bob", headers=headers).headers["X-Request-Id"]


@pytest.mark.parametrize(
    "sent", ["a", "7f3e-00.x_y:z=+/@", "Root=1-67891233-abcdef012345678912345678", "x" * 128]
)
def test_a_sane_id_is_taken(client: PluginClient, sent: str) -> None:
    assert returned(client, {"X-Request-Id": sent}) == sent


@pytest.mark.parametrize(
    "sent", ["", " ", "x" * 129, "a b", "a,b", "a\nb", "a\x1b[31m", "<b>", '"', "{}", "ä", "a\n"]
)
def test_another_one_is_replaced(client: PluginClient, sent: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", returned(client, {"X-Request-Id": sent}))


def test_without_one_the_trace_names_the_request(client: PluginClient) -> None:
    assert returned(client, {"traceparent": PARENT}) == TRACE
    assert returned(client, {"traceparent": PARENT, "X-Request-Id": "a b"}) == TRACE


@pytest.mark.parametrize(
    "parent",
    [
        "",
        TRACE,
        f"00-{'0' * 32}-{SPAN}-00",
        f"00-{TRACE}-{'0' * 16}-00",
        f"ff-{TRACE}-{SPAN}-00",
        f"00-{TRACE.upper()}-{SPAN}-00",
        f"{PARENT}-more",
        f"{PARENT}\n",
    ],
)
def test_what_is_no_traceparent_names_nothing(client: PluginClient, parent: str) -> None:
    made = returned(client, {"traceparent": parent})
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert made != TRACE


def test_no_two_are_alike(client: PluginClient) -> None:
    assert returned(client) != returned(client)


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 401), ("/nowhere", 401), ("/.backstage/auth/v1/cookie", 401)]
)
def test_refusals_have_it(client: PluginClient, path: str, status: int) -> None:
    answer = client.get(path, headers={"X-Request-Id": "me"})
    assert (answer.status_code, answer.headers.getlist("X-Request-Id")) == (status, ["me"])


def test_answers_that_are_no_json_have_it(client: PluginClient) -> None:
    answer = client.delete("/.backstage/auth/v1/cookie", who="bob", headers={"X-Request-Id": "me"})
    assert (answer.status_code, answer.headers.getlist("X-Request-Id")) == (204, ["me"])


def test_litellm_is_told(client: PluginClient, known_bob: FakeLiteLLM) -> None:
    client.get("/user/info", who="bob", headers={"X-Request-Id": "me", "traceparent": PARENT})
    (call,) = known_bob.calls
    assert (call.headers["X-Request-Id"], call.headers["traceparent"]) == ("me", PARENT)
    assert "tracestate" not in call.headers


def test_a_trace_that_was_made_is_told_and_named_like_the_request(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    answer = client.get("/user/info", who="bob")
    (call,) = known_bob.calls
    name = answer.headers["X-Request-Id"]
    assert call.headers["X-Request-Id"] == name
    assert re.fullmatch(f"00-{name}-[0-9a-f]{{16}}-01", call.headers["traceparent"])


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (f"01-{TRACE}-{SPAN}-03-what", f"00-{TRACE}-{SPAN}-01"),
        (f"cc-{TRACE}-{SPAN}-08", f"00-{TRACE}-{SPAN}-00"),
    ],
)
def test_of_a_later_traceparent_what_is_known_is_told(
    client: PluginClient, known_bob: FakeLiteLLM, sent: str, told: str
) -> None:
    client.get("/user/info", who="bob", headers={"traceparent": sent})
    assert known_bob.calls[0].headers["traceparent"] == told


@pytest.mark.parametrize(
    ("sent", "told"), [("a=1,b=2", "a=1,b=2"), ("a=\n1", None), ("a" * 513, None)]
)
def test_tracestate_is_passed_on_with_its_trace(
    client: PluginClient, known_bob: FakeLiteLLM, sent: str, told: str | None
) -> None:
    client.get("/user/info", who="bob", headers={"traceparent": PARENT, "tracestate": sent})
    assert known_bob.calls[0].headers.get("tracestate") == told


def test_calls_side_by_side_are_told(
    client: PluginClient, litellm: FakeLiteLLM, account: Account
) -> None:
    teams = [{"team_id": f"t{number}"} for number in range(5)]
    user = {"user_id": "bob@example.com"}
    litellm.get("/user/info", json=account(user_info=user, teams=teams))
    litellm.get("/team/info", json={"team_info": {"team_id": "t"}})
    client.get("/teams", who="bob", headers={"X-Request-Id": "me"})
    calls = [call for call in litellm.calls if call.path == "/team/info"]
    assert [call.headers["X-Request-Id"] for call in calls] == ["me"] * 5


def test_backstage_is_told(
    client: PluginClient,
    known_bob: FakeLiteLLM,
    backstage: FakeBackstage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    answered = backstage.answer

    def answer(asked: Asked) -> Reply:
        told.append(asked.headers)
        return answered(asked)

    monkeypatch.setattr(backstage, "answer", answer)
    client.get("/health", who="bob", headers={"X-Request-Id": "me"})  # it reads Backstage's keys
    assert [headers["X-Request-Id"] for headers in told] == ["me"]


def test_the_host_application_finds_it_and_no_request_is_left_with_it(
    network: object, settings: Settings, headers_of: HeadersOf
) -> None:
    app = Flask(__name__)
    app.register_blueprint(create_blueprint(settings))
    found = []

    @app.after_request
    def look(response: object) -> object:
        found.append((request.environ[request_id.REQUEST_ID], request_id.current()))
        return response

    PluginClient(app, headers_of=headers_of).get(
        "/health", who="bob", headers={"X-Request-Id": "me"}
    )
    assert [name for name, _ in found] == ["me"]
    assert request_id.current() is None


def test_what_is_carried_to_other_threads_is_the_present_request() -> None:
    environ = {"HTTP_X_REQUEST_ID": "me"}
    seen: Callable[[object], object] = lambda _: request_id.current()  # noqa: E731
    request_id.begin(environ)
    carried = request_id.with_context(seen)
    request_id.end()
    trace = carried(None)
    assert trace is not None
    assert request_id.current() is None
