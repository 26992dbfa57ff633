"""Whom a request may name: nobody's ids, administrators, people of services and of the bridge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from litellm_plugin import create_app
from tests.apps import Apps
from tests.client import PluginClient
from tests.fakes import FakeBackstage, FakeLiteLLM, Network, People
from tests.openapi import described
from tests.routes.conftest import OWN_KEY, Account

Headers = dict[str, str]
Json = dict[str, Any]
HeadersOf = Callable[[str], Headers]
ServiceOf = Callable[..., PluginClient]

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


@pytest.fixture
def service(apps: Apps, network: Network, client_of: Callable[[Flask], PluginClient]) -> ServiceOf:
    """Makes the client of a service: ``service("no-domain", reserved=("root",), group="...")``."""

    def service(
        variant: str = "full", *, reserved: tuple[str, ...] = (), group: str | None = None
    ) -> PluginClient:
        settings = apps.settings(variant)
        own = replace(settings.service, reserved_user_ids=reserved)
        bridge = replace(settings.bridge, group=group)
        return client_of(create_app(replace(settings, service=own, bridge=bridge)))

    return service


def _bridge(name: str) -> str:
    return f'keycloak:{{"azp":"abby-cli","preferred_username":"{name}","email":null}}'


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


def test_litellms_own_administrator_is_nobody_on_every_route(
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf, backstage: FakeBackstage
) -> None:
    groups = ["litellm-team-admins", "litellm-admins"]
    person = {"kind": "User", "metadata": {"name": ADMIN}, "spec": {"memberOf": groups}}
    backstage.people = People([person])
    client, headers = service("no-domain"), headers_of(f"user:default/{ADMIN}")
    for method, path in OF_PEOPLE:
        sent = {"alias": "a", "team_alias": "a"}
        answer = client.request(method, _full(path), json=sent, headers=headers)
        assert answer.status_code == 409, path
        assert "reserved" in answer.get_json()["error"]
        assert "litellm.userIdDomain" in answer.get_json()["hint"]
    assert litellm.calls == []


def test_no_service_may_name_it(
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf
) -> None:
    client, headers = service(), headers_of("static")
    for method, path in OF_PEOPLE:
        target = f"{_full(path)}&user_id={ADMIN}"
        answer = client.request(method, target, json={"alias": "a"}, headers=headers)
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
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf, user_id: str
) -> None:
    sent = {"alias": "a", "user_id": user_id}
    client = service(reserved=("root",))
    answer = client.post("/keys/generate", json=sent, headers=headers_of("static"))
    assert answer.status_code == 409
    assert litellm.calls == []


@pytest.mark.parametrize("name", [ADMIN, f"{ADMIN}@elsewhere.example", ADMIN.upper()])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/bridge/keys"), ("POST", "/bridge/keys"), ("GET", "/bridge/models")],
)
def test_nobody_is_it_at_the_bridge(
    service: ServiceOf,
    litellm: FakeLiteLLM,
    headers_of: HeadersOf,
    method: str,
    path: str,
    name: str,
) -> None:
    headers = headers_of(_bridge(name))
    answer = service("no-domain").request(method, path, json={}, headers=headers)
    assert answer.status_code == 409
    assert litellm.calls == []


@pytest.mark.parametrize("who", [f"user:default/{ADMIN}", ADMIN])
def test_no_team_admin_adds_or_removes_it(
    service: ServiceOf, litellm: FakeLiteLLM, dave: Headers, who: str
) -> None:
    litellm.get("/team/info", json=TEAM)
    client = service("no-domain")
    sent = {"userEntityRef": who}
    assert client.post("/teams/t1/members", json=sent, headers=dave).status_code == 409
    path = f"/teams/t1/members?userEntityRef={who}"
    assert client.delete(path, headers=dave).status_code == 409
    assert litellm.writes == []


def test_an_id_is_reserved_as_it_is_and_not_with_the_domain(
    service: ServiceOf, litellm: FakeLiteLLM, account: Account, headers_of: HeadersOf
) -> None:
    litellm.get("/user/info", json=account(f"{ADMIN}@example.com"))
    somebody = headers_of(f"uncatalogued:user:default/{ADMIN}")
    assert service().get("/keys", headers=somebody).status_code == 200


def test_an_account_that_turns_out_to_be_it_is_not_used(
    service: ServiceOf, litellm: FakeLiteLLM, account: Account, bob: Headers
) -> None:
    litellm.get("/user/info", json=account(user_info={"user_id": ADMIN}))
    assert service().get("/keys", headers=bob).status_code == 409


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


@pytest.mark.parametrize(
    ("found_by", "role", "plain"),
    [
        *(("id", role, plain) for role, plain in ROLES),
        *((way, *ROLES[n]) for way in ("e-mail", "service", "bridge") for n in (0, 4, -1)),
    ],
    ids=str,
)
def test_an_administrator_is_served_however_found_and_has_keys_for_models_only(
    apps: Apps,
    network: Network,
    client_of: Callable[[Flask], PluginClient],
    litellm: FakeLiteLLM,
    account: Account,
    headers_of: HeadersOf,
    found_by: str,
    role: Json,
    plain: bool,
) -> None:
    user_id = "sso-1" if found_by == "e-mail" else BOB
    row = {"user_id": user_id, "user_email": BOB, **role}
    litellm.get("/user/info", query={"user_id": user_id}, json=account(user_id, user_info=row))
    litellm.get("/user/info", status=404)
    litellm.get("/user/list", json={"users": [row], "total_pages": 1})
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    settings = apps.settings("key-types")
    cached = replace(settings.service, cache_seconds=3.0)
    client = client_of(create_app(replace(settings, service=cached)))
    who = {"service": "static", "bridge": _bridge("bob")}.get(found_by, "bob")
    path = "/bridge/keys" if found_by == "bridge" else "/keys/generate"

    def made(**sent: Any) -> int:
        named = {"user_id": user_id} if found_by == "service" else {}
        sent = {"alias": "a", **named, **sent}
        return client.post(path, json=sent, headers=headers_of(who)).status_code

    assert made() == 200
    assert made(key_type="llm_api") == 200
    assert made(key_type="read_only") == (200 if plain else 403)
    assert len(litellm.writes) == (3 if plain else 2)


@pytest.mark.parametrize(("role", "plain"), ROLES, ids=str)
def test_a_restricted_service_makes_keys_for_plain_users_only(
    service: ServiceOf,
    litellm: FakeLiteLLM,
    account: Account,
    headers_of: HeadersOf,
    role: Json,
    plain: bool,
) -> None:
    litellm.get("/user/info", json=account(user_info={"user_id": BOB, **role}))
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    sent = {"alias": "a", "user_id": BOB}
    client = service()
    answer = client.post("/keys/generate", json=sent, headers=headers_of(RESTRICTED))
    assert answer.status_code == (200 if plain else 403)
    assert len(litellm.writes) == plain
    if not plain:
        assert "user_id" in answer.get_json()["error"]
    assert client.post("/keys/generate", json=sent, headers=headers_of("static")).status_code == 200


def test_a_restricted_service_makes_no_key_for_whom_nobody_knows(
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf
) -> None:
    litellm.get("/user/info", status=404)
    body = {"alias": "a", "user_id": "nobody@example.com"}
    answer = service().post("/keys/generate", json=body, headers=headers_of(RESTRICTED))
    assert answer.status_code == 403
    assert litellm.writes == []


@pytest.mark.parametrize("named", [{}, {"user_id": None}, {"user_id": " "}], ids=str)
def test_a_restricted_service_makes_no_key_that_has_no_owner(
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf, named: Json
) -> None:
    body = {"alias": "a", **named}
    answer = service().post("/keys/generate", json=body, headers=headers_of(RESTRICTED))
    assert answer.status_code == 403
    assert "user_id" in answer.get_json()["error"]
    assert litellm.calls == []


def test_a_restricted_service_makes_no_key_while_litellm_can_not_tell(
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf
) -> None:
    litellm.get("/user/info", status=503)
    sent = {"alias": "a", "user_id": BOB}
    answer = service().post("/keys/generate", json=sent, headers=headers_of(RESTRICTED))
    assert answer.status_code >= 500
    assert litellm.writes == []


# -- services ----------------------------------------------------------------


@pytest.mark.parametrize("path", [f"/usage?{DAYS}", "/keys?", "/teams?", f"/teams/t1/usage?{DAYS}"])
def test_a_read_for_a_service_creates_nobody(
    service: ServiceOf, litellm: FakeLiteLLM, headers_of: HeadersOf, path: str
) -> None:
    litellm.get("/user/info", json={"user_id": "leaver", "user_info": {"spend": 3}, "keys": []})
    litellm.get("/team/daily/activity", json={"results": []})
    litellm.get("/team/daily/activity/aggregated", json={"results": []})
    answer = service().get(f"{path}&user_id=leaver", headers=headers_of("static"))
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
    service: ServiceOf,
    litellm: FakeLiteLLM,
    account: Account,
    headers_of: HeadersOf,
    method: str,
    path: str,
    name: str,
    open_to: bool,
) -> None:
    user_id = f"{name}@example.com"
    litellm.get("/user/info", json=account(user_id, user_info={"user_id": user_id}))
    litellm.get("/model/info", json={"data": [{"model_name": "gpt-4o"}]})
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    headers = headers_of(_bridge(name))
    answer = service(group=GROUP).request(method, path, json={}, headers=headers)
    assert answer.status_code == (200 if open_to else 403)
    if not open_to:
        assert GROUP in answer.get_json()["error"]
        assert litellm.calls == []
    assert service().request(method, path, json={}, headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), BRIDGE_ROUTES)
def test_the_bridge_is_closed_while_the_catalog_can_not_tell_its_group(
    service: ServiceOf,
    litellm: FakeLiteLLM,
    backstage: FakeBackstage,
    headers_of: HeadersOf,
    method: str,
    path: str,
) -> None:
    backstage.failures["catalog"] = 503
    headers = headers_of(_bridge("carol"))
    assert service(group=GROUP).request(method, path, json={}, headers=headers).status_code == 503
    assert litellm.calls == []


@pytest.mark.parametrize(
    ("name", "budget"),
    # of two people with one id, the one in the default namespace counts
    [("carol", 100), ("heidi", 100), ("bob", 10), ("zoe", 10)],
)
def test_a_first_visit_by_the_bridge_takes_the_role_of_the_catalog(
    service: ServiceOf,
    litellm: FakeLiteLLM,
    account: Account,
    headers_of: HeadersOf,
    name: str,
    budget: float,
) -> None:
    litellm.get("/user/info", status=404, times=1)
    litellm.post("/user/new")
    litellm.post("/user/update")
    user_id = f"{name}@example.com"
    litellm.get("/user/list", json={"users": []})
    litellm.get("/user/info", json=account(user_id, user_info={"user_id": user_id}))
    assert service().get("/bridge/keys", headers=headers_of(_bridge(name))).status_code == 200
    assert litellm.writes[0].body["max_budget"] == budget


def test_nobody_is_provisioned_by_the_bridge_while_the_role_can_not_be_known(
    service: ServiceOf, litellm: FakeLiteLLM, backstage: FakeBackstage, headers_of: HeadersOf
) -> None:
    litellm.get("/user/info", status=404)
    backstage.failures["catalog"] = 503
    assert service().get("/bridge/keys", headers=headers_of(_bridge("zoe"))).status_code == 503
    assert litellm.writes == []
