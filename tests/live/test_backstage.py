"""The service in the plugin's place: its own identity, the policy, the proxy, discovery."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from litellm_plugin.identity.jwt import PrivateKey
from litellm_plugin.identity.signing import PluginKeys, PluginTokens
from tests.live.kinds import Caller, Person, Policy, Told
from tests.live.rigs import STATIC_TOKEN, BackstageRig, LiteLLMRig
from tests.live.service import JWKS_PATH, Service
from tests.live.web import Client, json_of

BOB = "/api/catalog/entities/by-name/user/default/bob"
RIG_PLUGIN = "/api/rig"


@pytest.fixture
def jwk(service: Service, key_file: Path) -> dict[str, str]:
    """The key that the service signs with, private parts and all."""
    return dict(json.loads(key_file.read_text()))


def signed(jwk: dict[str, str], audience: str) -> str:
    """Return a plugin token, made as the service makes them."""
    return PluginTokens(PluginKeys(PrivateKey.from_jwk(jwk)), "litellm").issue(audience)


def test_the_catalog_accepts_the_token_that_the_service_signs(
    service: Service, backstage: BackstageRig, jwk: dict[str, str], told: Told
) -> None:
    answer = Client(backstage.url, signed(jwk, "catalog")).get(BOB)
    assert json_of(answer)["metadata"]["name"] == "bob"
    fetched = [
        line
        for line in service.access_log.splitlines()
        if JWKS_PATH in line and "python-requests" not in line
    ]
    assert fetched, service.access_log
    told(f"the catalog answers our own token with bob; it has asked for our key: {fetched[-1]}")


def test_backstage_takes_the_token_for_the_plugins(
    backstage: BackstageRig, jwk: dict[str, str]
) -> None:
    read = backstage.reads(signed(jwk, "rig"))
    assert read["principal"] == {"type": "service", "subject": "plugin:litellm"}


def test_the_catalog_refuses_the_same_token_signed_with_another_key(
    backstage: BackstageRig, jwk: dict[str, str], told: Told
) -> None:
    other = PrivateKey.generate().as_jwk() | {"kid": jwk["kid"]}
    answer = Client(backstage.url, signed(other, "catalog")).get(BOB)
    assert json_of(answer, 401)["error"]["name"] == "AuthenticationError"
    told("the catalog refuses our own token signed with another key: 401")


def test_the_published_key_has_no_private_part(service: Service, jwk: dict[str, str]) -> None:
    published = json_of(Client(service.url).get(JWKS_PATH))["keys"]
    assert [key["kid"] for key in published] == [jwk["kid"]]
    assert "d" not in published[0]


KEY_ROUTES = {
    "litellm.key.create": [("POST", "/keys/generate")],
    "litellm.key.manage": [
        ("POST", "/keys/{token}/update"),
        ("POST", "/keys/{token}/block"),
        ("POST", "/keys/{token}/unblock"),
        ("POST", "/keys/{token}/reset_spend"),
    ],
    "litellm.key.revoke": [("DELETE", "/keys/{token}")],
}


@pytest.mark.parametrize("permission", KEY_ROUTES)
def test_a_denied_permission_closes_its_key_routes_at_once(
    person: Person, litellm: LiteLLMRig, policy: Policy, permission: str, told: Told
) -> None:
    erin = person("erin")
    key = json_of(erin.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"}))
    keys, before = litellm.keys_of("erin@example.com"), litellm.key(key["token"])
    policy(f"{permission}@erin")
    for method, path in KEY_ROUTES[permission]:
        body = {"alias": "denied"} if permission == "litellm.key.create" else {}
        refused = erin.ask(method, path.format(token=key["token"]), json=body)
        assert permission in json_of(refused, 403)["error"]
    json_of(erin.get("/keys"))
    assert litellm.keys_of("erin@example.com") == keys
    assert litellm.key(key["token"]) == before
    policy("")
    json_of(erin.post(f"/keys/{key['token']}/block"))
    json_of(erin.delete(f"/keys/{key['token']}"))
    told(f"policy denies {permission} to erin: 403 at once; allowed again: at once")


def test_a_policy_that_fails_allows_nothing(
    person: Person, litellm: LiteLLMRig, policy: Policy, told: Told
) -> None:
    erin = person("erin")
    key = json_of(erin.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"}))
    keys, before = litellm.keys_of("erin@example.com"), litellm.key(key["token"])
    policy("litellm.*@*=THROW")
    body = {"alias": "thrown"}
    for routes in KEY_ROUTES.values():
        for method, path in routes:
            answer = erin.ask(method, path.format(token=key["token"]), json=body)
            assert isinstance(json_of(answer, 503)["error"], str)
    team = {"team_alias": "thrown", "models": ["gpt-4o"], "max_budget": 1}
    assert person("dave").post("/teams", team).status_code == 503
    assert litellm.keys_of("erin@example.com") == keys
    assert litellm.key(key["token"]) == before
    aliases = [row["team_alias"] for row in json_of(litellm.admin.get("/team/list"))]
    assert "thrown" not in aliases
    told("policy throws: 503 on every key route and on POST /teams, and nothing is written")


def test_the_proxy_of_backstage_hands_the_users_token_on(
    backstage: BackstageRig, litellm: LiteLLMRig, told: Told
) -> None:
    erin = Client(f"{backstage.url}/api/proxy/litellm", backstage.sign_in("erin"))
    assert json_of(erin.get("/user/info"))["user_id"] == "erin@example.com"
    key = json_of(erin.post("/keys/generate", {"alias": f"key-{uuid4().hex[:8]}"}))
    json_of(litellm.complete(key["key"]))
    assert key["token"] in [row["token"] for row in json_of(erin.get("/keys"))]
    assert json_of(erin.delete(f"/keys/{key['token']}")) == {"success": True}
    assert erin.get("/nosuch").status_code == 404
    told(f"through {erin.base_url} erin made, used, listed and deleted a key")


@pytest.mark.parametrize("forged", [("user", "{}", "--key", "other"), ("plugin",)], ids=" ".join)
def test_the_proxy_lets_nobody_else_through(
    backstage: BackstageRig, forged: tuple[str, ...]
) -> None:
    through = f"{backstage.url}/api/proxy/litellm"
    assert Client(through).get("/health").status_code == 401
    assert Client(through, backstage.forged(*forged)).get("/health").status_code == 401


def test_another_plugin_finds_the_service_by_discovery(
    service: Service, backstage: BackstageRig, told: Told
) -> None:
    rig = Client(backstage.url + RIG_PLUGIN, STATIC_TOKEN)
    found = json_of(rig.get("/discovery", plugin="litellm"))["internal"]
    assert found == service.url
    names = [
        row["model_name"] for row in json_of(Client(found, backstage.plugin_token()).get("/models"))
    ]
    assert "gpt-4o-mini" in names
    told(f"plugin rig found the service at {found}, and asked it for {len(names)} models")


def test_backstage_serves_no_litellm_plugin_of_its_own(backstage: BackstageRig) -> None:
    answer = Client(backstage.url, backstage.sign_in("erin")).get("/api/litellm/health")
    assert answer.status_code == 404


def test_the_permissions_are_published(caller: Caller, backstage: BackstageRig) -> None:
    plugin = caller(backstage.plugin_token())
    published = json_of(plugin.get("/.well-known/backstage/permissions/metadata"))
    names = [permission["name"] for permission in published["permissions"]]
    assert set(KEY_ROUTES) <= set(names)
    decided = json_of(
        Client(backstage.url + RIG_PLUGIN, backstage.sign_in("erin")).post(
            "/authorize", {"items": [{"permission": each} for each in published["permissions"]]}
        )
    )
    assert {item["result"] for item in decided} == {"ALLOW"}


def test_the_catalog_is_asked_as_the_plugin_not_as_the_user(person: Person, policy: Policy) -> None:
    policy("catalog.entity.read@*")
    assert json_of(person("alice").get("/user/info"))["can_view_audit"] is True
