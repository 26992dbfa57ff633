"""The Backstage stand-in against what was observed on Backstage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity import jwt
from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.backstage import BackstageStandIn
from litellm_plugin.sandbox.tokens import LIMITED_USER, Issuer, limited_token, proven

NOW = 1_795_426_567.0
BOB = "user:default/bob"
SERVICE = "http://127.0.0.1:5000/api/litellm"
CATALOG = "/api/catalog/entities/by-name"
ALLOWED = {"items": [{"id": "1", "result": "ALLOW"}]}

Ask = Callable[[str | None], tuple[int, Any]]


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer(clock=lambda: NOW)


@pytest.fixture(scope="module")
def service() -> Issuer:
    """The plugin's own key."""
    return Issuer(clock=lambda: NOW)


@pytest.fixture
def fetched() -> list[str]:
    """The key sets that were asked for."""
    return []


@pytest.fixture
def standin(issuer: Issuer, service: Issuer, fetched: list[str]) -> BackstageStandIn:
    def fetch(url: str) -> Any:
        fetched.append(url)
        if not url.startswith(SERVICE):
            raise BackstageUnavailable("it is down")
        return service.jwks()

    return BackstageStandIn(
        issuer,
        people.catalog(),
        discovery={"litellm": SERVICE, "down": "http://127.0.0.1:9/api/down"},
        static_tokens=["a-static-token"],
        fetch=fetch,
        clock=lambda: NOW,
    )


@pytest.fixture
def entity(standin: BackstageStandIn) -> Ask:
    def entity(token: str | None, path: str = "/user/default/bob") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        answer = standin.app.test_client().get(CATALOG + path, headers=headers)
        return answer.status_code, answer.get_json()

    return entity


@pytest.fixture
def decide(standin: BackstageStandIn) -> Ask:
    def decide(token: str | None, body: Any = None) -> tuple[int, Any]:
        permission = {"type": "basic", "name": "litellm.key.create", "attributes": {}}
        answer = standin.app.test_client().post(
            "/api/permission/authorize",
            json=body or {"items": [{"id": "1", "permission": permission}]},
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        return answer.status_code, answer.get_json()

    return decide


class TestWhoIsLetIn:
    def test_the_plugin_by_the_keys_it_serves(
        self, entity: Ask, service: Issuer, fetched: list[str]
    ) -> None:
        for _ in range(2):
            status, answer = entity(service.plugin_token("litellm", "catalog"))
            assert (status, answer["metadata"]["name"]) == (200, "bob")
        assert fetched == [f"{SERVICE}/.backstage/auth/v1/jwks.json"]

    def test_another_plugin_by_backstages_own_keys(self, entity: Ask, issuer: Issuer) -> None:
        assert entity(issuer.plugin_token("scaffolder", "catalog"))[0] == 200

    def test_a_user_and_a_static_token(self, entity: Ask, issuer: Issuer) -> None:
        assert entity(issuer.user_token(BOB))[0] == 200
        assert entity("a-static-token")[0] == 200

    def test_nobody_else(self, entity: Ask, issuer: Issuer, service: Issuer) -> None:
        user = issuer.user_token(BOB)
        for token, said in (
            (None, "Missing credentials"),
            ("two words", "Missing credentials"),
            ("garbage", "Illegal token"),
            ("a.b.c", "Illegal token"),
            ("another-static-token", "Illegal token"),
            (limited_token(user), "Illegal limited user token"),
            (user[:-8] + "AAAAAAAA", "Failed user token verification"),
            (service.user_token(BOB), "Failed user token verification"),
            (issuer.user_token(BOB, lifetime=0), "Failed user token verification"),
            (issuer.user_token(""), "No user sub found in token"),
            (service.plugin_token("litellm", "permission"), "Failed plugin token verification"),
            (
                service.plugin_token("litellm", "catalog", lifetime=-1),
                "Failed plugin token verification",
            ),
            (issuer.plugin_token("litellm", "catalog"), "Failed plugin token verification"),
            (service.plugin_token("nobody", "catalog"), "the source 'nobody' plugin unexpectedly"),
            (service.plugin_token("down", "catalog"), "the source 'down' plugin unexpectedly"),
            (service.plugin_token("../x", "catalog"), "forbidden subject format"),
        ):
            status, answer = entity(token)
            assert (status, answer["error"]["name"]) == (401, "AuthenticationError"), said
            assert said in answer["error"]["message"]

    def test_a_new_key_of_the_plugin_is_fetched(
        self, entity: Ask, service: Issuer, issuer: Issuer, fetched: list[str]
    ) -> None:
        entity(service.plugin_token("litellm", "catalog"))
        entity(issuer.plugin_token("litellm", "catalog"))
        assert len(fetched) == 2

    @pytest.mark.parametrize("obo", ["garbage", "a.b.c"])
    def test_no_plugin_for_a_user_who_is_none(
        self, entity: Ask, service: Issuer, monkeypatch: pytest.MonkeyPatch, obo: str
    ) -> None:
        monkeypatch.setattr("litellm_plugin.sandbox.tokens.limited_token", lambda _token: obo)
        token = service.plugin_token("litellm", "catalog", user_token="any")
        status, answer = entity(token)
        assert (status, "obo claim" in answer["error"]["message"]) == (401, True)


class TestCatalog:
    def test_looks_up_in_any_case_and_tells_full_group_refs(
        self, entity: Callable[..., tuple[int, Any]]
    ) -> None:
        status, answer = entity("a-static-token", "/USER/Default/Alice")
        assert (status, answer["kind"]) == (200, "User")
        group = {"type": "memberOf", "targetRef": "group:default/platform-admins"}
        assert answer["relations"] == [group]
        assert answer["spec"]["profile"]["email"] == "alice@example.com"

    def test_says_what_it_did_not_find(self, entity: Callable[..., tuple[int, Any]]) -> None:
        status, answer = entity("a-static-token", "/user/default/nope?a=1")
        assert status == 404
        assert answer == {
            "error": {
                "name": "NotFoundError",
                "message": "No entity named 'nope' found, with kind 'user' in namespace 'default'",
            },
            "request": {"method": "GET", "url": "/entities/by-name/user/default/nope?a=1"},
            "response": {"statusCode": 404},
        }

    def test_hides_from_a_user_what_the_policy_denies(
        self, standin: BackstageStandIn, entity: Ask, issuer: Issuer
    ) -> None:
        standin.denied.add(("catalog.entity.read", BOB))
        assert entity(issuer.user_token(BOB))[0] == 404
        assert entity("a-static-token")[0] == 200


class TestPermission:
    def test_decides_for_users_and_those_who_act_for_them(
        self, decide: Ask, issuer: Issuer, service: Issuer
    ) -> None:
        user = issuer.user_token(BOB)
        assert decide(user) == (200, ALLOWED)
        token = service.plugin_token("litellm", "permission", user_token=user)
        assert decide(token) == (200, ALLOWED)

    def test_denies_what_the_policy_denies(
        self, standin: BackstageStandIn, decide: Ask, issuer: Issuer
    ) -> None:
        standin.denied.add(("litellm.key.create", BOB))
        assert decide(issuer.user_token(BOB))[1]["items"][0]["result"] == "DENY"
        assert decide(issuer.user_token("user:default/alice")) == (200, ALLOWED)
        standin.reset()
        assert decide(issuer.user_token(BOB)) == (200, ALLOWED)

    def test_has_no_answer_for_services(self, decide: Ask, service: Issuer) -> None:
        for token in ("a-static-token", service.plugin_token("litellm", "permission")):
            status, answer = decide(token)
            assert (status, answer["error"]["name"]) == (403, "NotAllowedError")

    def test_knows_nobody_who_has_never_signed_in(self, decide: Ask, issuer: Issuer) -> None:
        assert decide(issuer.user_token("user:default/stranger"))[0] == 404

    @pytest.mark.parametrize(
        "body", [[1], {"items": 5}, {"items": [5]}, {"items": [{"id": "1", "permission": {}}]}]
    )
    def test_refuses_another_body(
        self, decide: Callable[..., tuple[int, Any]], issuer: Issuer, body: Any
    ) -> None:
        status, answer = decide(issuer.user_token(BOB), body)
        assert (status, answer["error"]["name"]) == (400, "InputError")


def test_key_sets_are_public_and_hold_no_private_key(standin: BackstageStandIn) -> None:
    client = standin.app.test_client()
    for path in (
        "/api/auth/.well-known/jwks.json",
        "/api/scaffolder/.backstage/auth/v1/jwks.json",
    ):
        (key,) = client.get(path).get_json()["keys"]
        assert set(key) == {"kty", "crv", "x", "y", "kid", "alg"}
    assert client.get("/api/litellm/.backstage/auth/v1/jwks.json").status_code == 404


def test_a_limited_token_is_the_one_that_backstage_would_sign(issuer: Issuer) -> None:
    token = jwt.parse(limited_token(issuer.user_token(BOB)))
    assert list(token.header) == ["typ", "alg", "kid"]
    assert token.typ == LIMITED_USER
    claims = proven(token, issuer.jwks(), now=NOW)
    assert claims == {"sub": BOB, "iat": int(NOW), "exp": int(NOW) + 3600}
