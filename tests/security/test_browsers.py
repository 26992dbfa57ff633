"""What another site can do with somebody's browser: CORS, frames, redirects, cookies."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from tests.client import PluginClient
from tests.fakes import FakeLiteLLM
from tests.rig import Rig
from tests.security.surface import PUBLIC, surfaces
from tests.standin import IDS, KEY
from tests.tokens import TokenFactory

Headers = dict[str, str]

EVIL = "https://evil.example"


def test_another_origin_reads_nothing_on_any_route(rig: Rig) -> None:
    for route in surfaces(rig.app):
        path = route.path(IDS)
        for method in (route.method, "OPTIONS"):
            sent = {"Origin": EVIL, "Access-Control-Request-Method": route.method}
            answer = rig.ask("bob", method, path, json={}, headers=sent)
            given = [name for name, _ in answer.headers if name.startswith("Access-Control")]
            assert given == [], f"{method} {path}"
            assert "Origin" in answer.vary


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000.evil.example",
        "http://localhost:3000@evil.example",
        "http://localhost:3000/",
        "http://localhost:30000",
        "https://localhost:3000",
        "HTTP://LOCALHOST:3000",
        "http://localhost:3000, https://evil.example",
        "http://localhost:3000\thttps://evil.example",
        "null",
        "file://",
        "*",
    ],
)
def test_an_origin_that_is_nearly_the_allowed_one_is_another(
    client: PluginClient, bob: Headers, origin: str
) -> None:
    answer = client.get("/health", headers=bob | {"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_every_answer_stays_out_of_frames_and_is_what_it_says(rig: Rig) -> None:
    for route in surfaces(rig.app):
        path = route.path(IDS)
        for who in ("none", "bob"):
            headers = rig.ask(who, route.method, path, json={}).headers
            assert headers["X-Frame-Options"] == "SAMEORIGIN"
            assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            # Texts of an attacker are in it; no browser runs them.
            assert "html" not in headers.get("Content-Type", "")


def test_a_cookie_alone_opens_no_route(rig: Rig, tokens: TokenFactory) -> None:
    """So that no other site can use a browser that is signed in."""
    for token in (tokens.limited("alice"), tokens.user("alice")):
        for route in surfaces(rig.app):
            path = route.path(IDS)
            sent = {"Cookie": f"backstage-auth={token}"}
            answer = rig.ask("none", route.method, path, json={}, headers=sent)
            assert answer.status_code == (200 if route.rule in PUBLIC else 401), str(route)


@pytest.mark.parametrize(
    "header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL"]
)
def test_no_header_makes_it_another_request(rig: Rig, header: str) -> None:
    value = f"/api/litellm/keys/{KEY}" if header == "X-Original-URL" else "DELETE"
    for method in ("GET", "POST"):
        answer = rig.ask("alice", method, f"/keys/{KEY}", headers={header: value})
        assert answer.status_code == 404
    assert KEY in rig.litellm.litellm.store.keys


def _connect(rig: Rig, uri: str, who: str = "bob", team: str = "") -> Any:
    query = f"redirect_uri={quote(uri, safe='')}" + (f"&team={quote(team)}" if team else "")
    return rig.ask(who, "GET", f"/opencode/connect?{query}")


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:1\\.evil.example/callback",
        "http://localhost%2eevil.example/callback",
        "http://localhost#.evil.example/callback",
        "http://localhost?.evil.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://127.1/callback",
        "http://2130706433/callback",
        "http://0x7f.0.0.1/callback",
        "http://[::1]/callback",
        "http://[::ffff:127.0.0.1]/callback",
        "http://0.0.0.0/callback",
        "http://localhost:/@evil.example/callback",
        "http:evil.example/callback",
        "http:///evil.example/callback",
        "http://localhost/callback/",
        "http://localhost/callback;x",
        "http://localhost/%63allback",
        "http://localhost//callback",
        "http://localhost:\u0661/callback",
        "data:text/html,callback",
        "http://LOCALHOST:1/../callback",
    ],
)
def test_a_key_is_sent_to_the_users_own_machine_only(rig: Rig, uri: str) -> None:
    answer = _connect(rig, uri)
    assert answer.status_code == 400
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost:1234/callback?key=forged&team=forged",
        "http://127.0.0.1/callback?state=a%26key%3Dforged",
        "http://LocalHost:80/callback?x=%0d%0aSet-Cookie:a=b",
    ],
)
def test_what_is_in_the_callback_forges_no_answer(rig: Rig, uri: str) -> None:
    target = _connect(rig, uri).headers["Location"]
    assert urlsplit(target).hostname in {"localhost", "127.0.0.1"}
    assert target.isprintable()
    sent = parse_qsl(urlsplit(target).query)
    assert [value for name, value in sent if name == "key"] != ["forged"]
    assert len([name for name, _ in sent if name == "key"]) == 1


def test_an_alias_that_somebody_else_has_taken_keeps_nobody_out(rig: Rig) -> None:
    """LiteLLM has an alias once for all users, and the one of a slot can be guessed."""
    squat = {"alias": "opencode-bob@example.com"}
    assert rig.ask("alice", "POST", "/keys/generate", json=squat).status_code == 200
    store = rig.litellm.litellm.store
    for _ in range(3):
        answer = _connect(rig, "http://localhost:1/callback")
        assert answer.status_code == 302
        mine = [row for row in store.keys.values() if row["user_id"] == "bob@example.com"]
        assert len(mine) == 1  # the one before is replaced
        assert mine[0]["key_alias"].startswith("opencode-bob@example.com.")


def test_another_refusal_of_litellm_is_not_tried_again(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers
) -> None:
    litellm.get(
        "/user/info",
        json={"user_id": "bob@example.com", "user_info": {"user_id": "bob@example.com"}},
    )
    litellm.post("/key/generate", status=400, json={"error": {"message": "no", "param": "models"}})
    uri = quote("http://localhost:1/callback", safe="")
    assert client.get(f"/opencode/connect?redirect_uri={uri}", headers=bob).status_code == 500
    assert len(litellm.writes) == 1
