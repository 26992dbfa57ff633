"""Whom a request may name: nobody's ids, administrators, people of services and of the bridge."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client import PluginClient, Serve, json_of
from tests.fakes import FakeBackstage, FakeLiteLLM, People
from tests.openapi import described
from tests.routes.conftest import OWN_KEY, Account
from tests.tokens import bridged

Json = dict[str, Any]

ADMIN = "default_user_id"
BOB = "bob@example.com"
DAYS = "start_date=2026-11-01&end_date=2026-11-02"
RESTRICTED = "raw:Bearer rig-static-litellm-keycreate-token"
TEAM = {
    "team_id": "t1",
    "team_info": {
        "metadata": {"owning_group": "group:default/litellm-team-admins"},
        "members_with_roles": [{"user_id": ADMIN, "role": "admin"}],
    },
}


# -- ids that are nobody's ---------------------------------------------------

PATHS = described().at("/paths")
# Nobody's in particular; all others know who asks, the bridge's in another way.
OPEN = {"/health", "/livez", "/readyz", "/config", "/openapi.json", "/bridge/health"}
OF_PEOPLE = [
    (method.upper(), path)
    for path, item in sorted(PATHS.items())
    for method in item.keys() & {"get", "post", "put", "patch", "delete"}
    if path not in OPEN and not path.startswith(("/.", "/bridge/"))
]


def _full(path: str) -> str:
    query = f"?{DAYS}&group=x&redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback"
    return path.format(token=OWN_KEY, team_id="t1", key=OWN_KEY) + query


@pytest.mark.parametrize("variant", ["no-domain"])
def test_litellms_own_administrator_is_nobody_on_every_route(
    client: PluginClient, litellm: FakeLiteLLM, backstage: FakeBackstage
) -> None:
    groups = ["litellm-team-admins", "litellm-admins"]
    person = {"kind": "User", "metadata": {"name": ADMIN}, "spec": {"memberOf": groups}}
    backstage.people = People([person])
    who = f"user:default/{ADMIN}"
    for method, path in OF_PEOPLE:
        sent = {"alias": "a", "team_alias": "a"}
        answer = client.request(method, _full(path), json=sent, who=who)
        assert answer.status_code == 409, path
        assert "reserved" in answer.get_json()["error"]
        assert "litellm.userIdDomain" in answer.get_json()["hint"]
    assert litellm.calls == []


def test_no_service_may_name_it(client: PluginClient, litellm: FakeLiteLLM) -> None:
    who = "static"
    for method, path in OF_PEOPLE:
        target = f"{_full(path)}&user_id={ADMIN}"
        answer = client.request(method, target, json={"alias": "a"}, who=who)
        assert answer.status_code == 409, path
    assert litellm.calls == []


@pytest.mark.parametrize(
    "user_id",
    [
        ADMIN,
        f" {ADMIN}",
        f"{ADMIN}\u00a0",
        "Default_User_ID",
        "\uff44efault_user_id",
        "Root",
        " root",
    ],
)
def test_no_key_is_made_for_it_however_it_is_spelt(
    serve: Serve, litellm: FakeLiteLLM, user_id: str
) -> None:
    sent = {"alias": "a", "user_id": user_id}
    client = serve(service={"reserved_user_ids": ("root",)})
    answer = client.post("/keys/generate", json=sent, who="static")
    assert answer.status_code == 409
    assert litellm.calls == []


@pytest.mark.parametrize("variant", ["no-domain"])
@pytest.mark.parametrize("name", [ADMIN, f"{ADMIN}@elsewhere.example", ADMIN.upper()])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/bridge/keys"), ("POST", "/bridge/keys"), ("GET", "/bridge/models")],
)
def test_nobody_is_it_at_the_bridge(
    client: PluginClient, litellm: FakeLiteLLM, method: str, path: str, name: str
) -> None:
    who = bridged(name, None)
    answer = client.request(method, path, json={}, who=who)
    assert answer.status_code == 409
    assert litellm.calls == []


@pytest.mark.parametrize("variant", ["no-domain"])
@pytest.mark.parametrize("who", [f"user:default/{ADMIN}", ADMIN])
def test_no_team_admin_adds_or_removes_it(
    client: PluginClient, litellm: FakeLiteLLM, who: str
) -> None:
    litellm.get("/team/info", json=TEAM)
    sent = {"userEntityRef": who}
    assert client.post("/teams/t1/members", json=sent, who="dave").status_code == 409
    path = f"/teams/t1/members?userEntityRef={who}"
    assert client.delete(path, who="dave").status_code == 409
    assert litellm.writes == []


def test_an_id_is_reserved_as_it_is_and_not_with_the_domain(
    client: PluginClient, litellm: FakeLiteLLM, account: Account
) -> None:
    litellm.get("/user/info", json=account(f"{ADMIN}@example.com"))
    somebody = f"uncatalogued:user:default/{ADMIN}"
    assert client.get("/keys", who=somebody).status_code == 200


def test_an_account_that_turns_out_to_be_it_is_not_used(
    client: PluginClient, litellm: FakeLiteLLM, account: Account
) -> None:
    litellm.get("/user/info", json=account(user_info={"user_id": ADMIN}))
    assert client.get("/keys", who="bob").status_code == 409


# -- administrators of LiteLLM -----------------------------------------------

ROLES: list[tuple[Json, bool]] = [
    ({}, True),
    ({"user_role": None}, True),
    ({"user_role": "internal_user"}, True),
    ({"user_role": "internal_user_viewer"}, True),
    ({"user_role": "proxy_admin"}, False),
    ({"user_role": "proxy_admin_viewer"}, False),
    ({"user_role": "org_admin"}, False),
    ({"user_role": "something_new"}, False),
    (
        {"user_role": "internal_user", "organization_memberships": [{"user_role": "org_admin"}]},
        False,
    ),
]


@pytest.mark.parametrize("variant", ["key-types"])
@pytest.mark.parametrize(
    ("found_by", "role", "plain"),
    [
        *(("id", role, plain) for role, plain in ROLES),
        *((way, *ROLES[n]) for way in ("e-mail", "service", "bridge") for n in (0, 4, -1)),
    ],
    ids=str,
)
def test_an_administrator_is_served_however_found_and_has_keys_for_models_only(
    serve: Serve, litellm: FakeLiteLLM, account: Account, found_by: str, role: Json, plain: bool
) -> None:
    user_id = "sso-1" if found_by == "e-mail" else BOB
    row = {"user_id": user_id, "user_email": BOB, **role}
    litellm.get("/user/info", query={"user_id": user_id}, json=account(user_id, user_info=row))
    litellm.get("/user/info", status=404)
    litellm.get("/user/list", json={"users": [row], "total_pages": 1})
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    client = serve(service={"cache_seconds": 3.0})
    who = {"service": "static", "bridge": bridged("bob", None)}.get(found_by, "bob")
    path = "/bridge/keys" if found_by == "bridge" else "/keys/generate"

    def made(**sent: Any) -> int:
        named = {"user_id": user_id} if found_by == "service" else {}
        sent = {"alias": "a", **named, **sent}
        return client.post(path, json=sent, who=who).status_code

    assert made() == 200
    assert made(key_type="llm_api") == 200
    assert made(key_type="read_only") == (200 if plain else 403)
    assert len(litellm.writes) == (3 if plain else 2)


@pytest.mark.parametrize(("role", "plain"), ROLES, ids=str)
def test_a_restricted_service_makes_keys_for_plain_users_only(
    client: PluginClient, litellm: FakeLiteLLM, account: Account, role: Json, plain: bool
) -> None:
    litellm.get("/user/info", json=account(user_info={"user_id": BOB, **role}))
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    sent = {"alias": "a", "user_id": BOB}
    told = json_of(client.post("/keys/generate", json=sent, who=RESTRICTED), 200 if plain else 403)
    assert len(litellm.writes) == plain
    if not plain:
        assert "user_id" in told["error"]
    assert client.post("/keys/generate", json=sent, who="static").status_code == 200


@pytest.mark.parametrize(
    ("named", "answered", "status"),
    [
        ({}, None, 403),
        ({"user_id": None}, None, 403),
        ({"user_id": " "}, None, 403),
        ({"user_id": "nobody@example.com"}, 404, 403),
        ({"user_id": BOB}, 503, 503),
    ],
    ids=str,
)
def test_a_restricted_service_makes_no_key_without_an_owner_that_litellm_knows(
    client: PluginClient, litellm: FakeLiteLLM, named: Json, answered: int | None, status: int
) -> None:
    if answered:
        litellm.get("/user/info", status=answered)
    answer = client.post("/keys/generate", json={"alias": "a", **named}, who=RESTRICTED)
    assert answer.status_code == status
    assert status != 403 or "user_id" in answer.get_json()["error"]
    assert litellm.writes == []
    assert bool(litellm.calls) == bool(answered)


# -- services ----------------------------------------------------------------


@pytest.mark.parametrize("path", [f"/usage?{DAYS}", "/keys?", "/teams?", f"/teams/t1/usage?{DAYS}"])
def test_a_read_for_a_service_creates_nobody(
    client: PluginClient, litellm: FakeLiteLLM, path: str
) -> None:
    litellm.get("/user/info", json={"user_id": "leaver", "user_info": {"spend": 3}, "keys": []})
    litellm.get("/team/daily/activity", json={"results": []})
    litellm.get("/team/daily/activity/aggregated", json={"results": []})
    answer = client.get(f"{path}&user_id=leaver", who="static")
    assert answer.status_code in {200, 404}
    assert litellm.writes == []


# -- the bridge --------------------------------------------------------------

GROUP = "group:default/ai-power-users"  # carol, ivan, and heidi of another namespace
BRIDGE_ROUTES = [("GET", "/bridge/keys"), ("POST", "/bridge/keys"), ("GET", "/bridge/models")]


@pytest.mark.parametrize(("method", "path"), BRIDGE_ROUTES)
@pytest.mark.parametrize(
    ("name", "open_to"),
    [("carol", True), ("heidi", True), ("bob", False), ("zoe", False), ("car,ol", False)],
)
def test_the_bridge_is_open_to_its_group(
    serve: Serve,
    litellm: FakeLiteLLM,
    account: Account,
    method: str,
    path: str,
    name: str,
    open_to: bool,
) -> None:
    user_id = f"{name}@example.com"
    litellm.get("/user/info", json=account(user_id, user_info={"user_id": user_id}))
    litellm.get("/model/info", json={"data": [{"model_name": "gpt-4o"}]})
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    who = bridged(name, None)
    answer = serve(bridge={"group": GROUP}).request(method, path, json={}, who=who)
    assert answer.status_code == (200 if open_to else 403)
    if not open_to:
        assert GROUP in answer.get_json()["error"]
        assert litellm.calls == []
    assert serve().request(method, path, json={}, who=who).status_code == 200


@pytest.mark.parametrize(("method", "path"), BRIDGE_ROUTES)
def test_the_bridge_is_closed_while_the_catalog_can_not_tell_its_group(
    serve: Serve, litellm: FakeLiteLLM, backstage: FakeBackstage, method: str, path: str
) -> None:
    backstage.failures["catalog"] = 503
    who = bridged("carol", None)
    assert serve(bridge={"group": GROUP}).request(method, path, json={}, who=who).status_code == 503
    assert litellm.calls == []


@pytest.mark.parametrize(
    ("name", "budget"),
    # of two people with one id, the one in the default namespace counts
    [("carol", 100), ("heidi", 100), ("bob", 10), ("zoe", 10)],
)
def test_a_first_visit_by_the_bridge_takes_the_role_of_the_catalog(
    client: PluginClient, litellm: FakeLiteLLM, account: Account, name: str, budget: float
) -> None:
    litellm.get("/user/info", status=404, times=1)
    litellm.post("/user/new")
    litellm.post("/user/update")
    user_id = f"{name}@example.com"
    litellm.get("/user/list", json={"users": []})
    litellm.get("/user/info", json=account(user_id, user_info={"user_id": user_id}))
    assert client.get("/bridge/keys", who=bridged(name, None)).status_code == 200
    assert litellm.writes[0].body["max_budget"] == budget


def test_nobody_is_provisioned_by_the_bridge_while_the_role_can_not_be_known(
    client: PluginClient, litellm: FakeLiteLLM, backstage: FakeBackstage
) -> None:
    litellm.get("/user/info", status=404)
    backstage.failures["catalog"] = 503
    assert client.get("/bridge/keys", who=bridged("zoe", None)).status_code == 503
    assert litellm.writes == []
