"""Which tokens of Backstage open the door, and which do not."""

from __future__ import annotations

import base64
import json

import pytest

from tests.live.kinds import Caller, Person, Policy, Told
from tests.live.rigs import STATIC_TOKEN, BackstageRig, LiteLLMRig
from tests.live.web import json_of
from tests.tokens import TokenFactory

PLUGIN = "Failed plugin token verification"
NO_KEYS = "unexpectedly does not have a JWKS endpoint"


@pytest.mark.parametrize(
    "forged",
    [
        ("user", '{"exp": "-1"}'),
        ("user", '{"nbf": "+60"}'),
        ("user", '{"iat": null}'),
        ("user", '{"sub": null}'),
        ("user", '{"sub": ""}'),
        ("user", "{}", "--alg", "none"),
        ("user", "{}", "--alg", "HS256"),
        ("user", "{}", "--key", "other"),
        ("user", "{}", '{"kid": "unheard-of"}'),
        ("user", "{}", '{"crit": ["b64"]}'),
        ("user", "{}", '{"typ": "JWT"}', "--key", "other"),
        ("user", '{"aud": ["backstage"]}', '{"typ": "JWT"}'),
        ("user", '{"exp": null}', '{"typ": null}'),
        ("limited",),
        ("limited", '{"exp": "-1"}'),
    ],
    ids=" ".join,
)
def test_a_forged_user_token_is_refused_with_the_words_of_backstage(
    caller: Caller, backstage: BackstageRig, forged: tuple[str, ...]
) -> None:
    token = backstage.forged(*forged)
    error = json_of(caller(token).get("/user/info"), 401)["error"]
    read = backstage.reads(token)
    assert read["ok"] is False
    assert error == {"name": read["name"], "message": read["message"]}


@pytest.mark.parametrize(
    "odd",
    [
        ("user", '{"aud": null}'),
        ("user", '{"iss": "http://elsewhere.example"}'),
        ("user", '{"uip": null}'),
        ("user", "{}", '{"typ": "JWT"}'),
        ("user", "{}", '{"typ": null}'),
        ("user", '{"iat": "+60"}'),
    ],
    ids=" ".join,
)
def test_what_backstage_lets_pass_passes(
    caller: Caller, backstage: BackstageRig, odd: tuple[str, ...]
) -> None:
    token = backstage.forged(*odd)
    assert backstage.reads(token)["ok"] is True
    assert json_of(caller(token).get("/health"))["status"] == "ok"


@pytest.mark.parametrize(
    ("forged", "message"),
    [
        (('{"exp": "-1"}',), PLUGIN),
        (('{"aud": "catalog"}',), PLUGIN),
        (('{"sub": "litellm"}',), PLUGIN),
        (("{}", "--key", "other"), PLUGIN),
        (("{}", "--alg", "none"), PLUGIN),
        (('{"sub": "nosuch"}',), NO_KEYS),
        (('{"sub": "../rig"}',), "Invalid plugin token: forbidden subject format"),
        (('{"obo": "x"}',), "Invalid user token in plugin token obo claim"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_forged_plugin_token_is_refused(
    caller: Caller, backstage: BackstageRig, forged: tuple[str, ...], message: str
) -> None:
    refused = caller(backstage.forged("plugin", *forged)).get("/user/info")
    error = json_of(refused, 401)["error"]
    assert error["name"] == "AuthenticationError"
    assert message in error["message"]


def test_a_forged_token_creates_nobody(
    caller: Caller, backstage: BackstageRig, litellm: LiteLLMRig, stranger: str, told: Told
) -> None:
    claims = json.dumps({"sub": stranger})
    assert (
        caller(backstage.forged("user", claims, "--key", "other")).get("/keys").status_code == 401
    )
    user_id = f"{stranger.rpartition('/')[2]}@example.com"
    assert litellm.user(user_id) is None
    json_of(caller(backstage.forged("user", claims)).get("/keys"))
    assert litellm.user(user_id) is not None
    told("the same claims make a user when signed with Backstage's key, and with no other key")


def test_a_token_changed_on_the_way_is_refused(caller: Caller, backstage: BackstageRig) -> None:
    header, payload, signature = backstage.sign_in("erin").split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | {"sub": "user:default/alice"}
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    assert caller(f"{header}.{changed}.{signature}").get("/user/info").status_code == 401


@pytest.mark.parametrize("token", [None, "", "garbage", "a.b.c"])
def test_without_a_token_there_is_nothing(caller: Caller, token: str | None) -> None:
    for path in ("/health", "/user/info", "/nosuch"):
        assert json_of(caller(token).get(path), 401)["error"]["name"] == "AuthenticationError"


def test_a_cookie_is_no_credential(caller: Caller, person: Person) -> None:
    issued = person("erin").get("/.backstage/auth/v1/cookie")
    cookie = {"backstage-auth": issued.cookies["backstage-auth"]}
    assert caller(None).ask("GET", "/user/info", cookies=cookie).status_code == 401


def test_another_plugin_is_a_service_that_asks_for_whom_it_likes(
    caller: Caller, backstage: BackstageRig, person: Person
) -> None:
    plugin = caller(backstage.plugin_token())
    assert json_of(plugin.get("/health"))["status"] == "ok"
    assert plugin.get("/user/info").status_code == 404
    own = json_of(person("erin").get("/user/info"))
    asked = json_of(plugin.get("/user/info", user_id="erin@example.com"))
    assert asked["user_id"] == own["user_id"]


def test_another_plugin_on_behalf_of_a_user_is_that_user(
    caller: Caller, backstage: BackstageRig, litellm: LiteLLMRig, told: Told
) -> None:
    plugin = caller(backstage.plugin_token("alice"))
    shown = json_of(plugin.get("/user/info", user_id="erin@example.com"))
    assert shown["user_id"] == "alice@example.com"
    assert shown["can_view_audit"] is True
    key = json_of(plugin.post("/keys/generate", {"alias": f"obo-{shown['user_id']}"}))
    assert litellm.key(key["token"])["user_id"] == "alice@example.com"
    json_of(plugin.delete(f"/keys/{key['token']}"))
    told("plugin rig, on behalf of alice, made and deleted a key of alice's")


def test_a_policy_binds_a_plugin_on_behalf_of_a_user(
    caller: Caller, backstage: BackstageRig, policy: Policy
) -> None:
    policy("litellm.key.create@alice")
    refused = caller(backstage.plugin_token("alice")).post("/keys/generate", {"alias": "obo"})
    assert "litellm.key.create" in json_of(refused, 403)["error"]


def test_a_static_token_is_a_service(caller: Caller, litellm: LiteLLMRig, person: Person) -> None:
    json_of(person("erin").get("/user/info"))
    service = caller(STATIC_TOKEN)
    body = {"alias": "of-a-service", "user_id": "erin@example.com"}
    key = json_of(service.post("/keys/generate", body))
    assert litellm.key(key["token"])["user_id"] == "erin@example.com"
    json_of(service.delete(f"/keys/{key['token']}?user_id=erin@example.com"))
    assert service.get("/audit").status_code == 401


@pytest.mark.parametrize(
    ("token", "reading", "generating"),
    [
        ("rig-static-catalog-only-token", 403, 403),
        ("rig-static-litellm-read-token", 200, 403),
        ("rig-static-litellm-keycreate-token", 200, 200),
    ],
)
def test_a_static_token_does_what_its_restrictions_leave(
    caller: Caller, litellm: LiteLLMRig, token: str, reading: int, generating: int, told: Told
) -> None:
    service = caller(token)
    assert service.get("/models").status_code == reading
    litellm.admin.post("/user/new", {"user_id": "erin@example.com", "auto_create_key": False})
    # A restricted service has to name a plain user.
    answer = service.post("/keys/generate", {"alias": token, "user_id": "erin@example.com"})
    assert answer.status_code == generating
    if generating == 200:
        json_of(litellm.admin.post("/key/delete", {"keys": [answer.json()["token"]]}))
    told(f"{token}: {reading} for GET /models, {generating} for POST /keys/generate")


def test_a_token_of_the_old_shared_secret_is_a_service(caller: Caller) -> None:
    tokens = TokenFactory()
    json_of(caller(tokens.legacy()).get("/models"))
    assert (
        caller(tokens.legacy(secret=b"another-secret-0123456789")).get("/models").status_code == 401
    )


def test_a_token_of_a_configured_key_set_is_a_service(
    caller: Caller, backstage: BackstageRig
) -> None:
    external = backstage.keycloak_token(aud="backstage-external")
    json_of(caller(external).get("/models"))
    elsewhere = backstage.keycloak_token(aud="backstage-external", iss="http://elsewhere.example")
    forged = backstage.keycloak_token("--key", "other", aud="backstage-external")
    for token in (elsewhere, forged):
        assert caller(token).get("/models").status_code == 401
