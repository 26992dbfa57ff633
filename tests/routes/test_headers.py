"""Security headers, ETags and cross-origin answers, as Backstage gives them."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from flask import Flask

from litellm_plugin.routes.responses import PRIVATE, SECURITY
from tests.client import MOUNT, PluginClient
from tests.fakes import FakeLiteLLM

Headers = dict[str, str]

ORIGIN = "http://localhost:3000"  # backend.cors.origin of the base settings


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/nope", 404), ("/usage", 400)])
def test_every_answer_has_the_security_headers(
    client: PluginClient, path: str, status: int
) -> None:
    answer = client.get(path, who="bob")
    assert answer.status_code == status
    assert SECURITY.items() <= dict(answer.headers).items()


PUBLIC = {"/.backstage/auth/v1/jwks.json", "/bridge/health"}


def _routes(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, re.sub(r"<[^>]*>", "some-id", rule.rule.removeprefix(MOUNT)))
        for rule in app.url_map.iter_rules()
        for method in sorted(rule.methods or ())
    ]


def test_no_answer_of_any_route_may_be_kept_but_public_documents(
    app: Flask, client: PluginClient, litellm: FakeLiteLLM
) -> None:
    litellm.on(None, "/user/info", json={"user_id": "alice@example.com", "keys": []})
    seen = Counter[int]()
    for method, path in _routes(app):
        for who in ("none", "alice", "raw:Bearer broken"):
            answer = client.request(method, path, who=who)
            if answer.status_code == 200 and path in PUBLIC and method in {"GET", "HEAD"}:
                assert "Cache-Control" not in answer.headers
            else:
                assert answer.headers.getlist("Cache-Control") == ["no-store"], (method, path)
            seen[answer.status_code] += 1
    assert {200, 401, 403, 404} <= set(seen)
    assert sum(seen.values()) > 100


def test_the_key_in_a_redirect_may_not_be_kept(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    back = "/opencode/connect?redirect_uri=http%3A%2F%2Flocalhost%3A1455%2Fcallback"
    answer = client.get(back, who="bob")
    assert answer.status_code == 302
    assert "key=sk-" in answer.headers["Location"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_what_is_outside_of_the_plugin_may_not_be_kept_either(app: Flask) -> None:
    answer = PluginClient(app, mount="").get("/elsewhere")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (404, "no-store")


def test_an_answer_that_did_not_change_is_not_sent_again(client: PluginClient) -> None:
    first = client.get("/config", who="bob")
    etag = first.headers["ETag"]
    assert etag.startswith('W/"')
    for known in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        again = client.get("/config", who="bob", headers={"If-None-Match": known})
        assert (again.status_code, again.data) == (304, b"")
        assert "Content-Type" not in again.headers
        assert PRIVATE.items() <= dict(again.headers).items()


def test_a_changed_answer_an_error_and_a_reload_are_sent_whole(client: PluginClient) -> None:
    etag = client.get("/config", who="bob").headers["ETag"]
    assert client.get("/health", who="bob", headers={"If-None-Match": etag}).status_code == 200
    reload = {"If-None-Match": etag, "Cache-Control": "no-cache"}
    assert client.get("/config", who="bob", headers=reload).status_code == 200
    missing = client.get("/nope", who="bob").headers["ETag"]
    assert client.get("/nope", who="bob", headers={"If-None-Match": missing}).status_code == 404


@pytest.mark.parametrize("path", ["/health", "/keys/generate", "/nope"])
def test_a_preflight_of_an_allowed_origin_needs_no_credentials(
    client: PluginClient, path: str
) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Headers": "authorization,content-type"}
    answer = client.request("OPTIONS", path, headers=asked)
    assert (answer.status_code, answer.data) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Access-Control-Allow-Methods"] == "GET,HEAD,PATCH,POST,PUT,DELETE"
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert set(answer.vary) == {"Origin", "Access-Control-Request-Headers"}


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:30000", "null", ""])
def test_another_origin_gets_no_leave(client: PluginClient, origin: str) -> None:
    preflight = client.request("OPTIONS", "/health", headers={"Origin": origin})
    simple = client.get("/health", who="bob", headers={"Origin": origin})
    assert (preflight.status_code, simple.status_code) == (401, 200)
    for answer in (preflight, simple):
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize(("path", "status"), [("/health", 401), ("/nope", 401)])
def test_an_allowed_origin_may_read_refusals_too(
    client: PluginClient, path: str, status: int
) -> None:
    answer = client.get(path, headers={"Origin": ORIGIN})
    assert answer.status_code == status
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
