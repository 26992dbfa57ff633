"""Command-line clients, whose users have a token of Keycloak and none of Backstage."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.live.kinds import Caller, Person, Told
from tests.live.rigs import KEYCLOAK_PORT, STATIC_TOKEN, BackstageRig, LiteLLMRig
from tests.live.web import json_of

PATHS = ("/bridge/keys", "/bridge/models")


def test_a_client_makes_a_key_lists_it_and_uses_it(
    caller: Caller, backstage: BackstageRig, litellm: LiteLLMRig, told: Told
) -> None:
    login = f"cli-{uuid4().hex[:8]}"
    user_id = f"{login}@example.com"
    claims = {"preferred_username": login, "email": user_id, "name": "Command Line"}
    client = caller(backstage.keycloak_token(**claims))
    assert json_of(client.get("/bridge/health"))["clientId"] == "abby-cli"
    assert json_of(client.get("/bridge/keys")) == []
    user = litellm.user(user_id)
    assert user is not None
    assert user["user_info"]["max_budget"] == 10
    key = json_of(client.post("/bridge/keys", {"alias": f"{login}-key", "duration": "1d"}))
    answer = json_of(litellm.complete(key["key"]))
    listing = client.get("/bridge/keys")
    assert [row["token"] for row in json_of(listing)] == [key["token"]]
    assert key["key"] not in listing.text
    known = litellm.key(key["token"])
    assert known["user_id"] == user_id
    assert known["metadata"]["created_via"] == "abby-cli"
    assert answer["model"] in [row["model_name"] for row in json_of(client.get("/bridge/models"))]
    told(f"{login} came with a Keycloak token, was provisioned, and used a key of the bridge")


def test_keycloak_and_backstage_agree_on_who_somebody_is(
    caller: Caller, person: Person, backstage: BackstageRig
) -> None:
    claims = {"preferred_username": "erin", "email": "erin@example.com"}
    client = caller(backstage.keycloak_token(**claims))
    key = json_of(client.post("/bridge/keys", {"alias": f"key-{uuid4().hex[:8]}"}))
    assert key["token"] in [row["token"] for row in json_of(person("erin").get("/keys"))]


@pytest.mark.parametrize(
    ("claims", "options"),
    [
        ({"exp": "-1"}, ()),
        ({"exp": None}, ()),
        ({"nbf": "+60"}, ()),
        ({"azp": "another-client"}, ()),
        ({"iss": "http://127.0.0.1:1/realms/rig"}, ()),
        ({"iss": f"http://127.0.0.1:{KEYCLOAK_PORT}/realms/other"}, ()),
        ({"typ": "ID"}, ()),
        ({"typ": "Refresh"}, ()),
        ({"sub": None, "email": None, "preferred_username": None}, ()),
        ({}, ("--alg", "none")),
        ({}, ("--alg", "HS256")),
        ({}, ("--key", "other")),
    ],
    ids=str,
)
def test_another_token_opens_nothing(
    caller: Caller,
    backstage: BackstageRig,
    litellm: LiteLLMRig,
    claims: dict[str, object],
    options: tuple[str, ...],
) -> None:
    login = f"cli-{uuid4().hex[:8]}"
    named = {"preferred_username": login, "email": f"{login}@example.com", **claims}
    client = caller(backstage.keycloak_token(*options, **named))
    for path in PATHS:
        assert isinstance(json_of(client.get(path), 401)["error"], str)
    assert client.post("/bridge/keys", {"alias": login}).status_code == 401
    assert litellm.user(f"{login}@example.com") is None


def test_each_door_has_its_own_tokens(caller: Caller, backstage: BackstageRig) -> None:
    for token in (None, backstage.sign_in("erin"), STATIC_TOKEN, backstage.plugin_token()):
        for path in PATHS:
            assert caller(token).get(path).status_code == 401
    assert caller(backstage.keycloak_token()).get("/user/info").status_code == 401


def test_a_client_sets_nothing_that_is_not_its_own(
    caller: Caller, backstage: BackstageRig, litellm: LiteLLMRig
) -> None:
    login = f"cli-{uuid4().hex[:8]}"
    client = caller(backstage.keycloak_token(preferred_username=login, email=None))
    body = {"alias": login, "allowed_routes": ["management_routes"]}
    assert "allowed_routes" in json_of(client.post("/bridge/keys", body), 400)["error"]
    body = {"alias": login, "team_id": "team-ml"}
    assert client.post("/bridge/keys", body).status_code == 403
    assert litellm.keys_of(f"{login}@example.com") == []
