"""Keys: what their owners may ask for, and nothing else under the master key."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin.config.settings import KeyGeneration
from litellm_plugin.keys.requests import BUDGET, KeyField, key_fields
from tests.client import PluginClient, Serve, json_of
from tests.fakes import FakeBackstage, FakeLiteLLM, Policy
from tests.routes.conftest import OWN_KEY
from tests.tokens import bridged

Json = dict[str, Any]


# What no key may have, by the name that LiteLLM has for it, where a team and a budget are required.
WRONG: dict[str, list[Any]] = {
    "key_alias": ["", " ", "a\u200bb", "a\u202eb", "a\nb", "a\x7fb", "a" * 513, 5],
    "models": ["gpt-4o", [1], ["a\nb"], {}],
    "max_budget": [None, 0, -1, "5", True, []],
    "team_id": [None, "", " ", 5, ["t1"], "a\nb"],
    "duration": ["", "-1", "xyz", "10parsecs", "30d x", "1dxyz", "99999d", "9" * 99 + "d", 30],
    "budget_duration": ["", "-1", "banana", "0s", "2mo", "30d x", "101y", 30, ["30d"]],
    "tpm_limit": [-1, 1.5, "10", True, 10**19],
    "rpm_limit": [-1, 1.5, "10", True, 10**19],
}
ONLY_NEW: dict[str, list[Any]] = {
    "metadata": ["x", [1], {"guardrails": []}],
    "key_type": ["management", "read_only", "default", "", 5, ["llm_api"], "LLM_API"],
    "user_id": [],  # a user's is ignored
    "auto_rotate": [True, "true", 1, 0, {}],
    "rotation_interval_days": [],
}
KEY_FIELDS = key_fields(KeyGeneration(allow_unlimited_budget=False, team_required=True))


def test_the_table_of_a_keys_fields_is_tested_whole() -> None:
    assert {field.name for field in KEY_FIELDS if field.changes} == WRONG.keys()
    assert {field.name for field in KEY_FIELDS if not field.changes} == ONLY_NEW.keys()


@pytest.mark.parametrize("variant", ["open-keys"])
@pytest.mark.parametrize("field", KEY_FIELDS, ids=lambda field: field.name)
def test_what_is_checked_of_a_new_key_is_checked_of_a_change(
    client: PluginClient, known_bob: FakeLiteLLM, field: KeyField
) -> None:
    complete = {"alias": "a", "max_budget": 1, "team_id": "t1"}
    for wrong in (WRONG | ONLY_NEW)[field.name]:
        for path, who in (("/keys/generate", "bob"), ("/bridge/keys", bridged())):
            sent = {**complete, field.created_as: wrong}
            answer = client.post(path, json=sent, who=who)
            assert answer.status_code == 400, (path, wrong)
            assert field.created_as in str(answer.get_json()), (path, wrong)
        path = f"/keys/{OWN_KEY}/update"
        answer = client.post(path, json={field.name: wrong}, who="bob")
        assert answer.status_code == 400, wrong
        assert field.name in answer.get_json()["error"]
        assert "Missing" not in answer.text
    assert known_bob.writes == []


@pytest.mark.parametrize(
    ("sent", "hint"),
    [
        ({"max_budget": 0}, f"alias, {BUDGET}"),
        ({"alias": "", "max_budget": "5", "no_such_field": 1}, f"alias, {BUDGET}"),
        ({"alias": None, "max_budget": None}, "alias"),
        ({"alias": "a", "max_budget": []}, BUDGET),
        ({"alias": "a", "max_budget": "x", "tpm_limit": "y"}, f"{BUDGET}, tpm_limit"),
        ({"alias": 5, "max_budget": "x", "duration": ""}, f"{BUDGET}, alias, duration"),
    ],
)
def test_the_hint_lists_everything_that_is_missing_or_wrong(
    client: PluginClient, known_bob: FakeLiteLLM, sent: Json, hint: str
) -> None:
    answer = client.post("/keys/generate", json=sent, who="bob")
    told = {"error": "Missing required fields", "hint": f"Required: {hint}"}
    assert (answer.status_code, answer.get_json()) == (400, told)


@pytest.mark.parametrize("variant", ["open-keys"])
def test_the_hint_lists_what_the_configuration_requires(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    for path, who, named in (
        ("/keys/generate", "bob", "alias, "),
        ("/bridge/keys", bridged(), ""),
    ):
        answer = client.post(path, json={"team_id": ""}, who=who)
        hint = f"Required: {named}max_budget (positive number), team_id"
        assert answer.get_json() == {"error": "Missing required fields", "hint": hint}


def test_a_wrong_budget_is_told_of_as_such_where_no_recording_says_otherwise(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    for path, who in ((f"/keys/{OWN_KEY}/update", "bob"), ("/bridge/keys", bridged())):
        told = json_of(client.post(path, json={"max_budget": -1}, who=who), 400)
        assert told["error"].startswith("max_budget must be a positive number")


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ({}, {"key_type": "llm_api"}),
        ({"key_type": None}, {"key_type": "llm_api"}),
        ({"key_type": "llm_api"}, {"key_type": "llm_api"}),
        (
            {"duration": "1y", "budget_duration": "2y"},
            {"duration": "365d", "budget_duration": "730d"},
        ),
        ({"duration": None, "budget_duration": None}, {"duration": None, "budget_duration": None}),
        ({"team_id": ""}, {"team_id": None}),
    ],
    ids=str,
)
def test_what_litellm_is_sent(
    client: PluginClient, known_bob: FakeLiteLLM, sent: Json, written: Json
) -> None:
    for path, who in (
        ("/keys/generate", "bob"),
        ("/bridge/keys", bridged()),
        ("/keys/generate", "static"),
        ("/keys/generate", "obo:bob"),
    ):
        known_bob.calls.clear()
        answer = client.post(path, json={"alias": "a", **sent}, who=who)
        assert answer.status_code == 200
        (write,) = known_bob.writes
        assert write.body.items() >= written.items()
        assert write.body["key_type"] == "llm_api"


def test_the_rotation_of_old_frontends_is_left_out(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    for rotation in (False, None):
        known_bob.calls.clear()
        sent = {"alias": "a", "auto_rotate": rotation, "rotation_interval_days": 30}
        assert client.post("/keys/generate", json=sent, who="bob").status_code == 200
        assert "rotat" not in str(known_bob.writes[0].body)
    sent = {"alias": "a", "auto_rotate": True}
    answer = client.post("/keys/generate", json=sent, who="bob")
    assert answer.get_json()["error"].startswith("auto_rotate must be false: ")


@pytest.mark.parametrize(
    ("types", "asked", "sent"),
    [
        (("llm_api", "read_only"), "read_only", "read_only"),
        (("llm_api", "read_only"), None, "llm_api"),
        (("llm_api", "read_only"), "default", None),
        (("default",), "default", "default"),
        (("default",), "llm_api", "llm_api"),
        (("default",), None, "llm_api"),
        ((), "llm_api", "llm_api"),
        ((), "read_only", None),
        (("llm_api", "read_only", "default"), "management", None),
    ],
)
def test_the_configuration_says_which_types_of_keys_may_be_asked_for(
    serve: Serve,
    known_bob: FakeLiteLLM,
    types: tuple[str, ...],
    asked: str | None,
    sent: str | None,
) -> None:
    client = serve(key_generation=KeyGeneration(key_types=types))
    answer = client.post("/keys/generate", json={"alias": "a", "key_type": asked}, who="bob")
    if sent:
        assert known_bob.writes[0].body["key_type"] == sent
    else:
        assert answer.status_code == 400
        allowed = " or ".join(dict.fromkeys(("llm_api", *types)))
        assert answer.get_json() == {"error": f"key_type must be {allowed}"}
        assert known_bob.writes == []
    assert "keyTypes" not in client.get("/config", who="bob").text


@pytest.mark.parametrize(("answered", "ours"), [(400, 400), (404, 500), (401, 500), (500, 500)])
def test_litellms_refusal_of_a_change_is_passed_on_with_the_field(
    client: PluginClient, litellm: FakeLiteLLM, account: Any, answered: int, ours: int
) -> None:
    litellm.get("/user/info", json=account())
    error = {"error": {"message": "no such thing", "param": "key_alias"}}
    param = {"param": "key_alias"} if ours == 400 else {}
    for method, action, path in (
        ("POST", "update", "update"),
        ("POST", "block", "block"),
        ("POST", "unblock", "unblock"),
        ("POST", "reset_spend", f"{OWN_KEY}/reset_spend"),
        ("DELETE", "", "delete"),
    ):
        litellm.post(f"/key/{path}", status=answered, json=error)
        sent = {"key_alias": "x"} if action == "update" else {}
        answer = client.request(method, _path(OWN_KEY, action), json=sent, who="bob")
        assert answer.status_code == ours, action
        assert answer.get_json() == {"error": "no such thing", **param}


def test_a_refusal_of_what_is_read_before_a_change_is_not_the_clients_fault(
    client: PluginClient, litellm: FakeLiteLLM
) -> None:
    litellm.get("/user/info", status=400, json={"error": {"message": "no", "param": "user_id"}})
    for method, action, body in MUTATIONS:
        answer = client.request(method, _path(OWN_KEY, action), json=body or {}, who="bob")
        assert (answer.status_code, answer.get_json()) == (500, {"error": "no"}), action
    assert litellm.writes == []


@pytest.mark.parametrize(
    ("status", "said", "updates"),
    [
        (404, {"detail": "Not Found"}, True),
        (404, {"detail": {"error": "Key not found."}}, False),
        (404, {"error": {"message": "Not Found"}}, False),
        (404, {}, False),
        (405, {"detail": "Method Not Allowed"}, False),
        (500, {"detail": "Not Found"}, False),
    ],
    ids=str,
)
def test_spend_is_reset_by_an_update_where_litellm_has_no_route_for_it(
    client: PluginClient, known_bob: FakeLiteLLM, status: int, said: Json, updates: bool
) -> None:
    known_bob.post(f"/key/{OWN_KEY}/reset_spend", status=status, json=said)
    answer = client.post(f"/keys/{OWN_KEY}/reset_spend", json={}, who="bob")
    assert answer.status_code == (200 if updates else 500)
    written = [write.body for write in known_bob.writes if write.path == "/key/update"]
    assert written == ([{"key": OWN_KEY, "spend": 0}] if updates else [])


def test_whose_key_it_is_can_not_be_forged(client: PluginClient, known_bob: FakeLiteLLM) -> None:
    metadata = {
        "created_by_backstage_user": "user:default/alice",
        "created_by_email": "alice@example.com",
        "created_via": "elsewhere",
        "backstage_entity": "user:default/alice",
        "purpose": "ci",
    }
    sent = {"alias": "mine", "user_id": "alice@example.com", "metadata": metadata}
    assert client.post("/keys/generate", json=sent, who="bob").status_code == 200
    (write,) = known_bob.writes
    assert write.body["user_id"] == "bob@example.com"
    assert write.body["metadata"]["purpose"] == "ci"
    assert "alice" not in str(write.body)
    assert "elsewhere" not in str(write.body)


def test_a_key_is_made_only_in_a_team_of_the_caller(
    client: PluginClient, known_bob: FakeLiteLLM
) -> None:
    for team, status in (("t1", 200), ("t2", 403)):
        sent = {"alias": "mine", "team_id": team}
        assert client.post("/keys/generate", json=sent, who="bob").status_code == status
    assert [write.body["team_id"] for write in known_bob.writes] == ["t1"]


@pytest.mark.parametrize(
    ("owner", "status"), [("group:default/litellm-team-admins", 200), ("group:default/other", 403)]
)
def test_a_team_admin_makes_keys_in_the_teams_of_their_group(
    client: PluginClient, known_bob: FakeLiteLLM, account: Any, owner: str, status: int
) -> None:
    known_bob.get("/user/info", json=account("dave@example.com", teams=[]))
    team = {"team_id": "owned", "team_info": {"metadata": {"owning_group": owner}}}
    known_bob.get("/team/info", query={"team_id": "owned"}, json=team)
    sent = {"alias": "mine", "team_id": "owned"}
    assert client.post("/keys/generate", json=sent, who="dave").status_code == status
    assert len(known_bob.writes) == (status == 200)


@pytest.mark.parametrize("who", ["static", "plugin"])
def test_a_service_names_whom_the_key_is_for(
    client: PluginClient, known_bob: FakeLiteLLM, who: str
) -> None:
    sent = {"alias": "ci", "user_id": "somebody"}
    path = "/keys/generate?user_id=bob%40example.com"
    assert client.post(path, json=sent, who=who).status_code == 200
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
@pytest.mark.parametrize(("policy", "status"), [("=DENY", 403), ("=THROW", 503)])
def test_nothing_is_written_without_a_permission(
    client: PluginClient,
    known_bob: FakeLiteLLM,
    backstage: FakeBackstage,
    method: str,
    action: str,
    body: Json | None,
    policy: str,
    status: int,
) -> None:
    backstage.policy = Policy(f"litellm.key.*@bob{policy}")
    answer = client.request(method, _path(OWN_KEY, action), json=body or {}, who="bob")
    assert answer.status_code == status
    assert known_bob.calls == []
