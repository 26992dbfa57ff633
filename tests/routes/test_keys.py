"""Keys: what their owners may ask for, and nothing else under the master key."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM, Policy
from tests.routes.conftest import FOREIGN_KEY, OWN_KEY

Headers = dict[str, str]
Json = dict[str, Any]

NOT_THE_CALLERS = [
    {name: value}
    for name, value in {
        "key": "sk-chosen-by-the-caller",
        "key_alias": "x",
        "permissions": {},
        "spend": 0,
        "soft_budget": 1,
        "budget_id": "b",
        "organization_id": "o",
        "project_id": "p",
        "guardrails": [],
        "allowed_routes": ["/user/new"],
        "aliases": {"gpt-4o": "expensive"},
        "config": {},
        "blocked": False,
        "tags": [],
        "user_role": "proxy_admin",
        "object_permission": {},
        "send_invite_email": True,
        "__proto__": {},
    }.items()
]


@pytest.mark.parametrize("field", NOT_THE_CALLERS, ids=lambda field: next(iter(field)))
def test_a_field_that_is_not_the_callers_to_set_is_named_and_refused(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers, field: Json
) -> None:
    answer = client.post("/keys/generate", json={"alias": "mine", **field}, headers=bob)
    assert answer.status_code == 400
    assert next(iter(field)) in answer.get_json()["error"]
    assert known_bob.calls == []


@pytest.mark.parametrize(
    "field",
    [
        {"alias": 5},
        {"alias": "a" * 513},
        {"alias": "line\nbreak"},
        {"models": "gpt-4o"},
        {"models": [1]},
        {"duration": 30},
        {"team_id": ["t1"]},
        {"tpm_limit": -1},
        {"tpm_limit": 1.5},
        {"rpm_limit": "10"},
        {"rpm_limit": True},
        {"metadata": "x"},
        {"key_type": "management"},
        {"max_budget": 0},
        {"max_budget": -1},
        {"max_budget": "5"},
        {"max_budget": True},
        {"max_budget": []},
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_before_anything_is_asked(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers, field: Json
) -> None:
    answer = client.post("/keys/generate", json={"alias": "mine", **field}, headers=bob)
    assert answer.status_code == 400
    assert known_bob.calls == []


@pytest.mark.parametrize("raw", ["1e999", "-1e999"])
def test_an_infinite_budget_is_none(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers, raw: str
) -> None:
    sent = '{"alias":"a","max_budget":' + raw + "}"
    headers = bob | {"Content-Type": "application/json"}
    assert client.post("/keys/generate", raw=sent, headers=headers).status_code == 400
    assert known_bob.calls == []


def test_whose_key_it_is_can_not_be_forged(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers
) -> None:
    metadata = {
        "created_by_backstage_user": "user:default/alice",
        "created_by_email": "alice@example.com",
        "created_via": "elsewhere",
        "backstage_entity": "user:default/alice",
        "purpose": "ci",
    }
    sent = {"alias": "mine", "user_id": "alice@example.com", "metadata": metadata}
    assert client.post("/keys/generate", json=sent, headers=bob).status_code == 200
    (write,) = known_bob.writes
    assert write.body["user_id"] == "bob@example.com"
    assert write.body["metadata"]["purpose"] == "ci"
    assert "alice" not in str(write.body)
    assert "elsewhere" not in str(write.body)


def test_a_key_is_made_only_in_a_team_of_the_caller(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers
) -> None:
    for team, status in (("t1", 200), ("t2", 403)):
        sent = {"alias": "mine", "team_id": team}
        assert client.post("/keys/generate", json=sent, headers=bob).status_code == status
    assert [write.body["team_id"] for write in known_bob.writes] == ["t1"]


@pytest.mark.parametrize(
    ("owner", "status"), [("group:default/litellm-team-admins", 200), ("group:default/other", 403)]
)
def test_a_team_admin_makes_keys_in_the_teams_of_their_group(
    client: PluginClient,
    known_bob: FakeLiteLLM,
    account: Any,
    dave: Headers,
    owner: str,
    status: int,
) -> None:
    known_bob.get("/user/info", json=account("dave@example.com", teams=[]))
    team = {"team_id": "owned", "team_info": {"metadata": {"owning_group": owner}}}
    known_bob.get("/team/info", query={"team_id": "owned"}, json=team)
    sent = {"alias": "mine", "team_id": "owned"}
    assert client.post("/keys/generate", json=sent, headers=dave).status_code == status
    assert len(known_bob.writes) == (status == 200)


@pytest.mark.parametrize("variant", ["open-keys"])
@pytest.mark.parametrize("budget", [{}, {"max_budget": None}])
def test_an_unlimited_key_is_refused_where_the_configuration_says_so(
    client: PluginClient, known_bob: FakeLiteLLM, bob: Headers, budget: Json
) -> None:
    sent = {"alias": "mine", "team_id": "t1", **budget}
    answer = client.post("/keys/generate", json=sent, headers=bob)
    assert answer.status_code == 400
    assert "max_budget" in answer.get_json()["hint"]
    path = f"/keys/{OWN_KEY}/update"
    assert client.post(path, json={"max_budget": None}, headers=bob).status_code == 400
    assert known_bob.writes == []


@pytest.mark.parametrize("who", ["static", "plugin"])
def test_a_service_names_whom_the_key_is_for(
    client: PluginClient, known_bob: FakeLiteLLM, headers_of: Any, who: str
) -> None:
    sent = {"alias": "ci", "user_id": "somebody"}
    path = "/keys/generate?user_id=bob%40example.com"
    assert client.post(path, json=sent, headers=headers_of(who)).status_code == 200
    (write,) = known_bob.writes
    assert write.body["user_id"] == "somebody"
    assert write.body["metadata"]["created_by_backstage_user"] == "unknown"
    assert known_bob.reads == []


MUTATIONS = [
    ("POST", "update", {"key_alias": "x"}),
    ("POST", "block", {}),
    ("POST", "unblock", {}),
    ("POST", "reset_spend", {}),
    ("DELETE", "", None),
]


def _path(token: str, action: str) -> str:
    return f"/keys/{token}/{action}".rstrip("/")


@pytest.mark.parametrize(("method", "action", "body"), MUTATIONS)
@pytest.mark.parametrize("token", [FOREIGN_KEY, "sk-...aaaa", "mine", OWN_KEY.upper() + "0"])
def test_a_key_of_somebody_else_can_not_be_touched(
    client: PluginClient,
    known_bob: FakeLiteLLM,
    bob: Headers,
    method: str,
    action: str,
    body: Json | None,
    token: str,
) -> None:
    answer = client.request(method, _path(token, action), json=body or {}, headers=bob)
    assert answer.status_code == 403
    assert answer.get_json() == {"error": "Access denied: key does not belong to the caller"}
    assert known_bob.writes == []


@pytest.mark.parametrize(("method", "action", "body"), MUTATIONS)
@pytest.mark.parametrize(("policy", "status"), [("=DENY", 403), ("=THROW", 503)])
def test_nothing_is_written_without_a_permission(
    client: PluginClient,
    known_bob: FakeLiteLLM,
    backstage: FakeBackstage,
    bob: Headers,
    method: str,
    action: str,
    body: Json | None,
    policy: str,
    status: int,
) -> None:
    backstage.policy = Policy(f"litellm.key.*@bob{policy}")
    answer = client.request(method, _path(OWN_KEY, action), json=body or {}, headers=bob)
    assert answer.status_code == status
    assert known_bob.calls == []


@pytest.mark.parametrize(
    ("answered", "ours"), [(400, 400), (409, 409), (401, 502), (403, 502), (429, 429), (500, 500)]
)
def test_a_refused_master_key_never_looks_like_a_dead_session(
    client: PluginClient,
    litellm: FakeLiteLLM,
    account: Any,
    bob: Headers,
    answered: int,
    ours: int,
) -> None:
    litellm.get("/user/info", json=account())
    litellm.post("/key/generate", status=answered, json={"error": {"message": "no"}})
    answer = client.post("/keys/generate", json={"alias": "ci"}, headers=bob)
    assert answer.status_code == ours


@pytest.mark.parametrize("secret", ["sk-abcdefgh12345678", "Bearer abc.def", "f" * 64])
def test_no_answer_repeats_a_secret_of_litellms_text(
    client: PluginClient, litellm: FakeLiteLLM, account: Any, bob: Headers, secret: str
) -> None:
    litellm.get("/user/info", json=account())
    body = {"error": {"message": f"bad key {secret} given", "param": "key"}}
    litellm.post("/key/generate", status=400, json=body)
    answer = client.post("/keys/generate", json={"alias": "ci"}, headers=bob)
    assert secret not in answer.text
    assert "redacted" in answer.text
