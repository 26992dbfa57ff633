"""``opencode connect`` sends a usable key, and only to the user's own machine."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.client import PluginClient
from tests.fakes import FakeLiteLLM
from tests.routes.conftest import OWN_KEY

Headers = dict[str, str]


def _connect(redirect_uri: str, team: str = "") -> str:
    path = f"/opencode/connect?redirect_uri={quote(redirect_uri, safe='')}"
    return path + (f"&team={quote(team)}" if team else "")


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "",
        "https://localhost:1234/callback",
        "http://evil.example:1234/callback",
        "http://localhost.evil.example:1234/callback",
        "http://localhost@evil.example:1234/callback",
        "http://user:pass@localhost:1234/callback",
        "http://localhost:1234/callback/../x",
        "http://localhost:1234/other",
        "http://localhost:1234\\@evil.example/callback",
        "http://localhost:abc/callback",
        "http://localhost:99999/callback",
        "//localhost:1234/callback",
        "javascript:alert(1)",
        "http://localhost:1234/callback\r\nSet-Cookie: a=b",
        "http://localhost:1234/call\tback",
        "http://ⓛocalhost:1234/callback",
    ],
)
def test_a_key_is_sent_nowhere_else(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers, redirect_uri: str
) -> None:
    answer = client.get(_connect(redirect_uri), headers=bob)
    assert answer.status_code == 400
    assert "Location" not in answer.headers
    assert known_bob.calls == []


def test_a_key_that_is_in_the_slot_is_replaced(
    client: PluginClient, litellm: FakeLiteLLM, account: Any, bob: Headers
) -> None:
    old = {"token": OWN_KEY, "key_alias": "opencode-bob@example.com"}
    other = {"token": "2" * 64, "key_alias": "opencode-bob@example.com-t1"}
    litellm.get("/user/info", json=account(keys=[old, other]))
    litellm.post("/key/delete", json={})
    litellm.post("/key/generate", json={"key": "sk-fresh"})
    answer = client.get(_connect("http://localhost:1234/callback?state=a%20b"), headers=bob)
    assert answer.headers["Location"] == "http://localhost:1234/callback?state=a+b&key=sk-fresh"
    assert [(write.path, write.body.get("keys")) for write in litellm.writes] == [
        ("/key/delete", [OWN_KEY]),
        ("/key/generate", None),
    ]


def test_a_team_must_be_the_callers(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers
) -> None:
    answer = client.get(_connect("http://localhost:1/callback", "t2"), headers=bob)
    assert answer.status_code == 403
    assert known_bob.writes == []
