"""``opencode connect`` sends a usable key, and only to the user's own machine."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.client import PluginClient
from tests.fakes import FakeLiteLLM, Network
from tests.routes.conftest import OWN_KEY
from tests.standin import furnished

Headers = dict[str, str]
Json = dict[str, Any]


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


CALLBACK = "http://localhost:1234/callback"
SLOT = "opencode-bob@example.com"
OLD = {"token": OWN_KEY, "key_alias": SLOT}
MADE = {"key": "sk-fresh", "token": "5" * 64}


@pytest.fixture
def in_the_slot(litellm: FakeLiteLLM, account: Any) -> FakeLiteLLM:
    """LiteLLM has a key of bob's in the slot, and another one beside it."""
    other = {"token": "2" * 64, "key_alias": f"{SLOT}-t1"}
    litellm.get("/user/info", json=account(keys=[OLD, other]))
    return litellm


def _writes(litellm: FakeLiteLLM) -> list[tuple[str, Any]]:
    return [(write.path, write.body.get("keys")) for write in litellm.writes]


def test_a_key_that_is_in_the_slot_is_replaced_once_the_new_one_is_there(
    client: PluginClient, in_the_slot: FakeLiteLLM, bob: Headers
) -> None:
    in_the_slot.post("/key/delete", json={})
    in_the_slot.post("/key/generate", json=MADE)
    answer = client.get(_connect(f"{CALLBACK}?state=a%20b"), headers=bob)
    assert answer.headers["Location"] == f"{CALLBACK}?state=a+b&key=sk-fresh"
    assert _writes(in_the_slot) == [("/key/generate", None), ("/key/delete", [OWN_KEY])]
    sent = in_the_slot.writes[0].body
    assert sent["key_type"] == "llm_api"
    assert re.fullmatch(re.escape(SLOT) + r"\.[0-9a-f]{8}", sent["key_alias"])


@pytest.mark.parametrize("alias", [f"{SLOT}.0123abcd", f"{SLOT}~0123abcd"])
def test_a_key_under_another_name_leaves_the_slots_own_name_free(
    client: PluginClient, litellm: FakeLiteLLM, account: Any, bob: Headers, alias: str
) -> None:
    litellm.get("/user/info", json=account(keys=[{**OLD, "key_alias": alias}]))
    litellm.post("/key/delete", json={})
    litellm.post("/key/generate", json=MADE)
    assert client.get(_connect(CALLBACK), headers=bob).status_code == 302
    assert litellm.writes[0].body["key_alias"] == SLOT
    assert _writes(litellm)[1:] == [("/key/delete", [OWN_KEY])]


@pytest.mark.parametrize("status", [404, 400, 401, 500, 503])
def test_an_old_key_that_can_not_be_deleted_does_not_keep_the_new_one_back(
    client: PluginClient,
    in_the_slot: FakeLiteLLM,
    bob: Headers,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    in_the_slot.post("/key/delete", status=status, json={"error": {"message": "no"}})
    in_the_slot.post("/key/generate", json=MADE)
    answer = client.get(_connect(CALLBACK), headers=bob)
    assert answer.headers["Location"] == f"{CALLBACK}?key=sk-fresh"
    assert ("a replaced key is left" in caplog.text) is (status != 404)
    assert OWN_KEY not in caplog.text


@pytest.mark.parametrize(
    "reply",
    [
        {"status": 500, "json": {"error": {"message": "kaboom"}}},
        {"status": 429, "json": {}},
        {"json": {"token": "5" * 64}},
        {"json": {"token": "5" * 64, "key": None}},
        {"json": {}},
        {"json": []},
    ],
    ids=str,
)
def test_where_no_new_key_comes_the_old_one_stays(
    client: PluginClient, in_the_slot: FakeLiteLLM, bob: Headers, reply: Json
) -> None:
    in_the_slot.post("/key/delete", json={})
    in_the_slot.post("/key/generate", **reply)
    assert client.get(_connect(CALLBACK), headers=bob).status_code >= 500
    deleted = [keys for path, keys in _writes(in_the_slot) if path == "/key/delete"]
    assert [OWN_KEY] not in deleted
    # What has no secret is of no use to anybody.
    assert deleted == ([["5" * 64]] if "token" in reply["json"] else [])


@pytest.mark.parametrize(("made", "deleted"), [(MADE, "5" * 64), ({"key": "sk-fresh"}, "sk-fresh")])
def test_a_browser_that_has_gone_leaves_the_old_key(
    client: PluginClient,
    in_the_slot: FakeLiteLLM,
    bob: Headers,
    monkeypatch: pytest.MonkeyPatch,
    made: Json,
    deleted: str,
) -> None:
    monkeypatch.setattr("litellm_plugin.routes.keys.client_gone", lambda: True)
    in_the_slot.post("/key/delete", json={})
    in_the_slot.post("/key/generate", json=made)
    assert client.get(_connect(CALLBACK), headers=bob).status_code == 499
    assert _writes(in_the_slot) == [("/key/generate", None), ("/key/delete", [deleted])]


def test_of_two_at_a_time_one_key_is_left(
    client: PluginClient, network: Network, litellm: FakeLiteLLM, bob: Headers
) -> None:
    network.hosts[network.hosts.index(litellm)] = stand_in = furnished()
    assert client.get("/keys", headers=bob).status_code == 200

    def connect(_: int) -> int:
        return client.get(_connect(CALLBACK), headers=bob).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(connect, range(6))) == [302] * 6
    rows = stand_in.litellm.store.keys.values()
    assert len([row for row in rows if str(row["key_alias"]).startswith(SLOT)]) == 1


def test_a_team_must_be_the_callers(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers
) -> None:
    answer = client.get(_connect("http://localhost:1/callback", "t2"), headers=bob)
    assert answer.status_code == 403
    assert known_bob.writes == []


@pytest.mark.parametrize("variant", ["open-keys"])
def test_where_keys_have_to_be_in_a_team_this_one_has_to_be(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers
) -> None:
    answer = client.get(_connect(CALLBACK), headers=bob)
    assert answer.status_code == 400
    assert "team is required" in answer.get_json()["error"]
    assert known_bob.writes == []
    assert client.get(_connect(CALLBACK, "t1"), headers=bob).status_code == 302
