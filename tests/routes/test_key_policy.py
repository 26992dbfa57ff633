"""Limits of keys hold for every way to make or change one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from litellm_plugin.cache.locks import FileLocks
from litellm_plugin.config.settings import KeyGeneration, KeyPolicy, Provisioning, Role, Settings
from tests.client import PluginClient, Serve, json_of
from tests.fakes import FakeBackstage, FakeLiteLLM, Network
from tests.fakes.network import NOTHING
from tests.routes.conftest import OWN_KEY
from tests.standin import furnished
from tests.tokens import bridged

Json = dict[str, Any]

POWER = "group:default/ai-power-users"  # carol's, and heidi's of the contractors
POLICY = KeyPolicy(max_duration="30d", max_budget=100, max_rpm_limit=10, allowed_models=("cheap",))
FILLED = {"duration": "30d", "max_budget": 100, "rpm_limit": 10, "models": ["cheap"]}
CALLBACK = "/opencode/connect?redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback"

# Every way to make a key, or to change one, and who takes it.
WAYS = (
    ("/keys/generate", "bob"),
    (f"/keys/{OWN_KEY}/update", "bob"),
    ("/bridge/keys", bridged()),
    ("/keys/generate", "static"),
)

ENDED = "2020-01-01T00:00:00+00:00"  # within any limit, whatever the time is
LONG = ["2999-01-01T00:00:00+00:00", None, "never", 5]


@pytest.fixture
def under(settings: Settings, serve: Serve) -> Serve:
    """Makes the client of a service with limits: ``under(KeyPolicy(...), max_budget=5)``."""

    def under(policy: KeyPolicy = POLICY, **of_power_users: Any) -> PluginClient:
        roles = (Role(POWER, {}, key_policy=of_power_users), *settings.provisioning.roles)
        return serve(key_policy=policy, provisioning={"roles": roles})

    return under


def made(litellm: FakeLiteLLM) -> Json:
    """Return the limits of the one key that was made or changed."""
    (write,) = [call for call in litellm.writes if call.path in {"/key/generate", "/key/update"}]
    return {name: write.body[name] for name in FILLED if name in write.body}


def test_what_the_frontend_leaves_out_is_filled_in(under: Serve, known_bob: FakeLiteLLM) -> None:
    known_bob.rules[1].reply.json["expires"] = "2026-11-28T00:00:00Z"
    sent = {"alias": "ci", "models": [], "duration": "10d", "max_budget": 5, "key_type": "llm_api"}
    assert under().post("/keys/generate", json=sent, who="bob").status_code == 200
    assert made(known_bob) == {**FILLED, "duration": "10d", "max_budget": 5}


@pytest.mark.parametrize(
    "beyond",
    [
        {"duration": None},
        {"duration": "31d"},
        {"max_budget": None},
        {"max_budget": 101},
        {"budget_duration": "1h"},
        {"rpm_limit": None},
        {"rpm_limit": 11},
        {"models": ["dear"]},
        {"models": ["all-team-models"]},
    ],
    ids=str,
)
def test_what_goes_beyond_is_refused_on_every_way(
    under: Serve, known_bob: FakeLiteLLM, beyond: Json
) -> None:
    known_bob.get("/model/info", json={"data": []})
    known_bob.get("/models", json={"data": []})
    client = under()
    for path, who in WAYS:
        alias = {} if "update" in path else {"alias": "ci"}
        answer = client.post(path, json={**alias, **beyond}, who=who)
        assert answer.status_code == 400, path
        assert "everybody" in answer.get_json()["error"]
    assert known_bob.writes == []


def test_a_change_leaves_alone_what_it_does_not_name(under: Serve, known_bob: FakeLiteLLM) -> None:
    client = under()
    for sent, change in (
        ({"key_alias": "x"}, {}),
        ({"max_budget": 50, "models": []}, {"max_budget": 50, "models": ["cheap"]}),
    ):
        known_bob.calls.clear()
        assert client.post(f"/keys/{OWN_KEY}/update", json=sent, who="bob").status_code == 200
        assert made(known_bob) == change


def test_spend_is_not_reset_under_a_limit_of_budgets(under: Serve, known_bob: FakeLiteLLM) -> None:
    path = f"/keys/{OWN_KEY}/reset_spend"
    told = json_of(under().post(path, json={}, who="bob"), 403)
    assert "at most 100 USD for everybody" in told["error"]
    known_bob.post(f"/key/{OWN_KEY}/reset_spend", json={})
    free = KeyPolicy(max_duration="30d")
    assert under(free).post(path, json={}, who="bob").status_code == 200


def test_a_role_has_limits_of_its_own(under: Serve, litellm: FakeLiteLLM, account: Any) -> None:
    client = under(max_budget=500.0, max_duration=None)
    for who, most, whom in (("bob", 100, "everybody"), ("carol", 500, f"members of {POWER}")):
        litellm.get("/user/info", query={"user_id": f"{who}@example.com"}, json=account())
        sent = {"alias": "ci", "max_budget": most + 1}
        told = json_of(client.post("/keys/generate", json=sent, who=who), 400)
        assert told == {"error": f"max_budget must be at most {most} USD for {whom}"}
    litellm.post("/key/generate", json={"key": "sk-new"})
    sent = {"alias": "ci", "duration": None}
    assert client.post("/keys/generate", json=sent, who="carol").status_code == 200
    assert made(litellm) == {**FILLED, "duration": None, "max_budget": 500}


@pytest.mark.parametrize(
    ("name", "most"), [("carol", 5), ("bob", 100), ("heidi", 5), ("nobody", 100)]
)
def test_the_bridge_is_no_way_round_the_limits_of_a_role(
    under: Serve, litellm: FakeLiteLLM, account: Any, name: str, most: int
) -> None:
    user_id = f"{name}@example.com"
    litellm.get("/user/info", query={"user_id": user_id}, json=account(user_id))
    who = bridged(name, None)
    client = under(max_budget=5.0)
    sent = {"alias": "cli", "max_budget": most + 1}
    told = json_of(client.post("/bridge/keys", json=sent, who=who), 400)
    assert f"at most {most} USD" in told["error"]
    service = "static"
    sent = {"alias": "cli", "max_budget": most + 1, "user_id": user_id}
    answer = client.post("/keys/generate", json=sent, who=service)
    assert f"at most {most} USD" in answer.get_json()["error"]
    assert litellm.writes == []


@pytest.mark.parametrize("path", ["/bridge/keys", "/keys/generate"])
def test_no_key_is_made_while_a_role_can_not_be_known(
    under: Serve, known_bob: FakeLiteLLM, backstage: FakeBackstage, path: str
) -> None:
    client = under(max_budget=5.0)
    assert client.get("/health", who="bob").status_code == 200  # the key set is known now
    backstage.failures["catalog"] = 503
    who = bridged() if "bridge" in path else "bob"
    answer = client.post(path, json={"alias": "cli", "max_budget": 1}, who=who)
    assert answer.status_code == 503
    assert known_bob.writes == []


def test_a_model_of_an_allowed_access_group_is_allowed(
    under: Serve, known_bob: FakeLiteLLM
) -> None:
    rows = [
        {"model_name": "small", "model_info": {"access_groups": ["everyone"]}},
        {"model_name": "large", "model_info": {"access_groups": ["premium"]}},
    ]
    known_bob.get("/model/info", json={"data": rows})
    client = under(KeyPolicy(allowed_models=("everyone",)))
    for model, status in (("small", 200), ("large", 400), ("unheard-of", 400), ("everyone", 200)):
        sent = {"alias": "ci", "models": [model]}
        assert client.post("/keys/generate", json=sent, who="bob").status_code == status, model


def test_a_key_that_its_team_lets_live_too_long_is_shortened(
    under: Serve, known_bob: FakeLiteLLM
) -> None:
    token = "2" * 64
    known_bob.rules[1].reply.json["expires"] = "2999-01-01T00:00:00Z"
    known_bob.rules[2].reply.json["expires"] = ENDED
    sent = {"alias": "ci", "team_id": "t1", "duration": "5d"}
    answer = under().post("/keys/generate", json=sent, who="bob")
    assert answer.get_json()["expires"] == ENDED
    assert known_bob.writes[-1].body == {"key": token, "duration": "5d"}


SHORTENED: list[Json] = [
    *({"json": {"key": "2" * 64, "expires": expires}} for expires in LONG),
    {"json": {"key": "2" * 64}},
    {"json": []},
    {"status": 400, "json": {"error": {"message": "no"}}},
    {"status": 500, "json": {}},
]


@pytest.mark.parametrize(
    ("expires", "shortened", "deleted"),
    [
        *((LONG[0], shortened, 200) for shortened in SHORTENED),
        *((expires, SHORTENED[0], 500) for expires in LONG),
    ],
    ids=str,
)
def test_a_key_that_lives_too_long_is_deleted_and_not_handed_out(
    under: Serve, litellm: FakeLiteLLM, account: Any, expires: Any, shortened: Json, deleted: int
) -> None:
    token = "2" * 64
    litellm.get("/user/info", query={"user_id": "bob@example.com"}, json=account())
    litellm.post("/key/generate", json={"key": "sk-canary-new", "token": token, "expires": expires})
    litellm.post("/key/update", **shortened)
    litellm.post("/key/delete", status=deleted, json={})
    client = under()
    service = "static"
    for method, path, sent, who in (
        ("POST", "/keys/generate", {"alias": "a"}, "bob"),
        ("POST", "/bridge/keys", {"duration": "1d"}, bridged()),
        ("POST", "/keys/generate", {"alias": "a", "user_id": "x"}, service),
        ("GET", CALLBACK, NOTHING, "bob"),
    ):
        litellm.calls.clear()
        answer = client.request(method, path, json=sent, who=who)
        assert answer.status_code == 502
        assert "duration" in answer.get_json()["error"]
        assert "sk-canary" not in answer.text + str(answer.headers)
        assert [write.path for write in litellm.writes] == [
            "/key/generate",
            "/key/update",
            "/key/delete",
        ]
        assert litellm.writes[-1].body == {"keys": [token]}


@pytest.mark.parametrize(
    ("before", "after", "status", "deleted"),
    [
        (ENDED, ENDED, 200, False),
        (None, ENDED, 200, False),
        (None, None, 502, False),
        ("2999-01-01T00:00:00Z", "2999-01-01T00:00:00Z", 502, False),
        (ENDED, None, 502, True),
        (ENDED, "2999-01-01T00:00:00Z", 502, True),
    ],
)
def test_a_change_that_makes_a_key_live_too_long_deletes_it(
    under: Serve,
    litellm: FakeLiteLLM,
    account: Any,
    before: str | None,
    after: str | None,
    status: int,
    *,
    deleted: bool,
) -> None:
    row = {"token": OWN_KEY, "expires": before}
    litellm.get("/user/info", json=account(keys=[row]))
    litellm.post("/key/update", json={"key": OWN_KEY, "expires": after})
    litellm.post("/key/delete", json={})
    path = f"/keys/{OWN_KEY}/update"
    answer = under().post(path, json={"duration": "5d"}, who="bob")
    assert answer.status_code == status
    paths = [write.path for write in litellm.writes]
    assert paths == ["/key/update", *(["/key/delete"] if deleted else [])]
    # Without a limit it is LiteLLM's to say.
    free = under(KeyPolicy(max_budget=5))
    assert free.post(path, json={"duration": "5d"}, who="bob").status_code == 200


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("openai/gpt-4o", 200),
        ("openai/*", 200),
        ("openai/gpt-*", 200),
        ("cheap", 200),
        ("openai2/gpt-4o", 400),
        ("anthropic/*", 400),
        ("*", 400),
        ("openai/*|.*", 400),
        ("all-proxy-models", 400),
    ],
)
def test_a_wildcard_is_every_model_that_it_fits_on_every_way(
    under: Serve, known_bob: FakeLiteLLM, model: str, status: int
) -> None:
    known_bob.get("/model/info", json={"data": [{"model_name": "cheap"}]})
    client = under(KeyPolicy(allowed_models=("openai/*", "cheap")))
    for path, who in WAYS:
        named = {} if "update" in path else {"alias": "ci"}
        answer = client.post(path, json={**named, "models": [model]}, who=who)
        assert answer.status_code == status, path
        assert status == 200 or f'"{model}"' in answer.get_json()["error"]


def test_a_limit_takes_the_place_of_a_budget_that_must_not_be_missing(
    serve: Serve, known_bob: FakeLiteLLM
) -> None:
    limited = {
        "key_generation": KeyGeneration(allow_unlimited_budget=False),
        "key_policy": KeyPolicy(max_budget=7),
    }
    client = serve(**limited)
    assert client.post("/keys/generate", json={"alias": "a"}, who="bob").status_code == 200
    assert made(known_bob) == {"max_budget": 7}
    lifted = Role("group:default/platform-ai", {}, key_policy={"max_budget": None})
    client = serve(**limited, provisioning=Provisioning(enabled=True, roles=(lifted,)))
    told = json_of(client.post("/keys/generate", json={"alias": "a"}, who="bob"), 400)
    assert "max_budget" in told["hint"]


# -- the number of keys ------------------------------------------------------


@pytest.fixture
def three_keys(network: Network, litellm: FakeLiteLLM, under: Serve) -> PluginClient:
    """Asks a service in front of a LiteLLM with a memory, where three keys may be active."""
    network.hosts[network.hosts.index(litellm)] = furnished()
    return under(KeyPolicy(max_active_keys=3))


def _active(client: PluginClient, who: str) -> list[str]:
    rows = client.get("/keys", who=who).get_json()
    return [row["token"] for row in rows if not row.get("blocked")]


def test_many_requests_at_once_make_no_key_too_many(three_keys: PluginClient) -> None:
    bridge = bridged()
    assert three_keys.get("/keys", who="bob").get_json() == []

    def make(number: int) -> int:
        path, who = (("/keys/generate", "bob"), ("/bridge/keys", bridge))[number % 2]
        return three_keys.post(path, json={"alias": f"k{number}"}, who=who).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(make, range(8))) == [200] * 3 + [403] * 5
    assert len(_active(three_keys, "bob")) == 3


def test_no_way_leads_to_a_key_too_many(three_keys: PluginClient) -> None:
    client = three_keys
    for number in range(3):
        sent = {"alias": f"k{number}", "duration": "1d"}
        assert client.post("/keys/generate", json=sent, who="bob").status_code == 200
    first, second, _ = _active(client, "bob")
    service = "static"
    own = {"alias": "more", "user_id": "bob@example.com"}

    def refused(answer: Any) -> None:
        assert answer.status_code == 403
        text = answer.get_json()["error"]
        assert text.startswith("At most 3 active keys are allowed for everybody, and there are 3.")

    refused(client.post("/keys/generate", json={"alias": "more"}, who="bob"))
    refused(client.post("/bridge/keys", json={"alias": "more"}, who=bridged()))
    refused(client.post("/keys/generate", json=own, who=service))
    refused(client.get(CALLBACK, who="bob"))

    assert client.post(f"/keys/{first}/block", json={}, who="bob").status_code == 200
    # The slot of opencode is taken now, and taken anew without a further key.
    for _ in range(2):
        assert client.get(CALLBACK, who="bob").status_code == 302
    refused(client.post(f"/keys/{first}/unblock", json={}, who="bob"))

    expire = {"duration": "0s"}
    assert client.post(f"/keys/{second}/update", json=expire, who="bob").status_code == 200
    assert client.post(f"/keys/{first}/unblock", json={}, who="bob").status_code == 200
    assert client.post(f"/keys/{first}/unblock", json={}, who="bob").status_code == 200
    refused(client.post(f"/keys/{second}/update", json={"duration": "1d"}, who="bob"))
    renamed = {"key_alias": "renamed"}
    assert client.post(f"/keys/{second}/update", json=renamed, who="bob").status_code == 200
    assert client.delete(f"/keys/{first}", who="bob").status_code == 200
    again = {"duration": "1d"}
    assert client.post(f"/keys/{second}/update", json=again, who="bob").status_code == 200
    refused(client.post("/keys/generate", json={"alias": "more"}, who="bob"))


def test_a_service_makes_keys_for_nobody_and_none_for_the_unknown(three_keys: PluginClient) -> None:
    service = "static"
    for number in range(4):
        sent: Json = {"alias": f"k{number}"}
        answer = three_keys.post("/keys/generate", json=sent, who=service)
        assert answer.status_code == 200
    sent = {"alias": "more", "user_id": "ghost"}
    assert three_keys.post("/keys/generate", json=sent, who=service).status_code == 400


def test_no_key_is_made_without_the_lock_it_is_counted_under(
    three_keys: PluginClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert three_keys.get("/keys", who="bob").get_json() == []
    monkeypatch.setattr("litellm_plugin.cache.cache.PATIENCE", 0.0)
    with FileLocks().hold("active keys of bob@example.com", 0.0) as held:
        assert held
        answer = three_keys.post("/keys/generate", json={"alias": "a"}, who="bob")
        assert answer.status_code == 503
    assert _active(three_keys, "bob") == []
