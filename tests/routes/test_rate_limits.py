"""Rate limits: who changes too much, or guesses tokens, waits; everybody else does not notice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from werkzeug.test import TestResponse

from litellm_plugin.cache.counters import Counters
from litellm_plugin.config.settings import Rate, RateLimits
from tests.client import PluginClient, Serve
from tests.fakes import FakeBackstage, FakeLiteLLM
from tests.openapi import described
from tests.routes.conftest import OWN_KEY
from tests.tokens import TokenFactory, bridged

STRANGER = "203.0.113.66"


@pytest.fixture
def make(serve: Serve) -> Serve:
    """Makes a worker with limits of three."""
    limits = RateLimits(writes=Rate(3, 60), service_writes=Rate(5, 60), failed_tokens=Rate(3, 60))

    def make(**over: Any) -> PluginClient:
        return serve(service={"rate_limits": limits, **over})

    return make


def _refused(answer: TestResponse, method: str = "POST", path: str = "/keys/generate") -> None:
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert set(answer.get_json()) == {"error"}
    assert answer.headers["Retry-After"] in answer.get_json()["error"]
    assert list(described().answer_faults(method, path, answer)) == []


def _change(client: PluginClient, who: str, **sent: Any) -> TestResponse:
    return client.post("/keys/generate", json={"alias": "ci", **sent}, who=who)


def test_a_caller_who_changes_too_much_has_to_wait_and_others_have_not(
    make: Serve, known_bob: FakeLiteLLM
) -> None:
    client = make()
    assert [_change(client, "bob").status_code for _ in range(3)] == [200] * 3
    before = len(known_bob.calls)
    _refused(_change(client, "bob"))
    _refused(client.delete(f"/keys/{OWN_KEY}", who="bob"), "DELETE", f"/keys/{OWN_KEY}")
    _refused(
        client.get("/opencode/connect?redirect_uri=http://localhost:1/callback", who="bob"),
        "GET",
        "/opencode/connect",
    )
    assert len(known_bob.calls) == before
    assert client.get("/keys", who="bob").status_code == 200
    assert _change(client, "alice").status_code != 429


def test_reading_counts_for_nothing(
    make: Serve, known_bob: FakeLiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make()

    def counted(*_: object) -> None:
        raise AssertionError("a read was counted")

    monkeypatch.setattr(Counters, "hit", counted)
    for path in ("/keys", "/health", "/nope", "/config"):
        assert client.get(path, who="bob").status_code in {200, 404}
        client.request("OPTIONS", path, who="bob")
    client.request("HEAD", "/opencode/connect", who="bob")
    assert client.post("/nope", who="bob").status_code == 404


def test_a_token_that_was_verified_a_moment_ago_is_not_even_looked_up(
    make: Serve, known_bob: FakeLiteLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(cache_seconds=30.0)
    assert client.get("/keys", who="bob").status_code == 200

    def asked(*_: object) -> None:
        raise AssertionError("the counts were looked at")

    monkeypatch.setattr(Counters, "over", asked)
    monkeypatch.setattr(Counters, "hit", asked)
    assert client.get("/keys", who="bob").status_code == 200


def test_a_user_is_one_caller_whoever_acts_for_them(make: Serve, known_bob: FakeLiteLLM) -> None:
    client = make()
    by = ["bob", "obo:bob", "bob", "obo:bob"]
    assert [_change(client, who).status_code for who in by] == [200, 200, 200, 429]


def test_a_service_has_a_limit_of_its_own(make: Serve, known_bob: FakeLiteLLM) -> None:
    client = make()
    statuses = [_change(client, "static", user_id=f"user-{n}").status_code for n in range(6)]
    assert statuses == [200] * 5 + [429]
    assert _change(client, "plugin", user_id="x").status_code == 200


def test_a_bridge_client_is_counted_by_its_identity(make: Serve, known_bob: FakeLiteLLM) -> None:
    client = make()
    answers = [client.post("/bridge/keys", json={}, who=bridged()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    _refused(answers[3], path="/bridge/keys")
    assert client.get("/bridge/keys", who=bridged()).status_code == 200


def _guess(
    client: PluginClient, number: int = 0, headers: Mapping[str, str] | None = None
) -> TestResponse:
    guess = {"Authorization": f"Bearer guess-{number}", **(headers or {})}
    return client.get("/keys", headers=guess)


def test_who_guesses_tokens_has_to_wait(make: Serve) -> None:
    client = make()
    assert [_guess(client, n).status_code for n in range(3)] == [401] * 3
    _refused(_guess(client), "GET", "/keys")
    bridge = client.get("/bridge/keys", headers={"Authorization": "Bearer guess"})
    _refused(bridge, "GET", "/bridge/keys")


def test_a_guess_that_comes_true_does_not_count_any_more(make: Serve) -> None:
    client = make()
    assert client.get("/health", who="static").status_code == 200
    for number in range(4):
        _guess(client, number)
    _refused(client.get("/health", who="static"), "GET", "/health")


@pytest.mark.parametrize("who", ["bob", "obo:bob", "plugin"])
def test_whoever_is_at_the_same_address_gets_in_with_a_signed_token(
    make: Serve, known_bob: FakeLiteLLM, who: str
) -> None:
    client = make()
    assert client.get("/health", who="plugin").status_code == 200
    for number in range(6):
        _guess(client, number)
    assert client.get("/health", who=who).status_code == 200


def test_a_guesser_makes_us_ask_no_plugin_for_its_keys(
    make: Serve, backstage: FakeBackstage, tokens: TokenFactory
) -> None:
    client = make()

    def made_up(number: int) -> TestResponse:
        token = tokens.plugin(sub=f"made-up-{number}")
        return client.get("/keys", headers={"Authorization": f"Bearer {token}"})

    assert [made_up(number).status_code for number in range(5)] == [401, 401, 401, 429, 429]
    asked = [call for call in backstage.calls if "made-up" in call.plugin]
    assert len(asked) == 4  # the fourth was the one too many


@pytest.mark.parametrize(
    ("who", "path", "status"),
    [
        ("none", "/keys", 401),
        ("none", "/bridge/keys", 401),
        ("static", "/audit", 401),
        ("bob", "/audit", 403),
    ],
)
def test_a_refusal_that_is_not_about_the_token_is_no_guess(
    make: Serve, known_bob: FakeLiteLLM, who: str, path: str, status: int
) -> None:
    client = make()
    assert {client.get(path, who=who).status_code for _ in range(6)} == {status}


def test_while_backstage_is_down_nobody_has_guessed(make: Serve, backstage: FakeBackstage) -> None:
    client = make()
    backstage.failures["auth"] = 503
    assert {client.get("/health", who="bob").status_code for _ in range(6)} == {401}


def test_a_client_behind_a_proxy_cannot_choose_its_address(make: Serve) -> None:
    client = make(trusted_proxies=1)
    for number in range(4):
        # The proxy has put the real address behind what the client sent.
        forged = {"X-Forwarded-For": f"10.9.9.{number}, {STRANGER}"}
        answer = _guess(client, number, forged)
    assert answer.status_code == 429
    assert _guess(client, 0, {"X-Forwarded-For": "198.51.100.7"}).status_code == 401


def test_without_a_trusted_proxy_the_header_means_nothing(make: Serve) -> None:
    client = make()
    for number in range(4):
        answer = _guess(client, number, {"X-Forwarded-For": f"10.9.9.{number}"})
    assert answer.status_code == 429


def test_switched_off_nobody_waits(make: Serve, known_bob: FakeLiteLLM) -> None:
    client = make(rate_limits=RateLimits(enabled=False))
    assert {_change(client, "bob").status_code for _ in range(10)} == {200}
    assert {_guess(client, number).status_code for number in range(10)} == {401}
