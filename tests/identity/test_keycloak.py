from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin.config.settings import Bridge
from litellm_plugin.identity.keycloak import BridgeIdentity, BridgeRefused, BridgeVerifier
from tests.identity.doubles import NOW, Clock, Web, numbered
from tests.tokens import SigningKey, TokenFactory

REALM = "http://127.0.0.1:7080/realms/rig"
CERTS = f"{REALM}/protocol/openid-connect/certs"
FACTORY = TokenFactory(clock=Clock(), issuer=REALM)
BRIDGE = Bridge(enabled=True, issuer=REALM)


@pytest.fixture
def web() -> Web:
    return Web({CERTS: FACTORY.jwks()[CERTS]})


@pytest.fixture
def verifier(web: Web) -> BridgeVerifier:
    return BridgeVerifier(BRIDGE, web, clock=Clock(), timer=Clock(0))


def refusal(verifier: BridgeVerifier, authorization: str | None) -> str:
    with pytest.raises(BridgeRefused) as caught:
        verifier.verify(authorization)
    assert caught.value.status == 401
    body = caught.value.body("GET", "/bridge/keys")
    assert set(body) == {"error", "hint"}
    assert body["error"] == "unauthorized"
    return str(body["hint"])


def test_an_access_token_is_its_user(verifier: BridgeVerifier) -> None:
    identity = verifier.verify(f"Bearer {FACTORY.keycloak(sub='kc-1')}")
    assert identity == BridgeIdentity("kc-1", "bob@example.com", "bob", "Bob Brown")


@pytest.mark.parametrize(
    ("claims", "login"),
    [
        ({}, "bob"),
        ({"preferred_username": None}, "bob@example.com"),
        ({"preferred_username": None, "email": None}, "kc-1"),
        ({"preferred_username": "", "email": ""}, "kc-1"),
        ({"preferred_username": " ", "email": None}, "kc-1"),
        ({"preferred_username": "zoe", "email": None, "sub": None, "name": None}, "zoe"),
    ],
)
def test_the_user_name_counts_before_the_address_before_the_subject(
    verifier: BridgeVerifier, claims: dict[str, Any], login: str
) -> None:
    token = FACTORY.keycloak(**{"sub": "kc-1", **claims})
    assert verifier.verify(f"Bearer {token}").login == login


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer   ", "bearer x", "BEARER x", "Basic x", "x"],
)
def test_the_scheme_is_spelled_bearer_and_nothing_else(
    verifier: BridgeVerifier, authorization: str | None
) -> None:
    assert refusal(verifier, authorization) == "missing Bearer token"


@pytest.mark.parametrize(
    "claims",
    [
        {"azp": None, "aud": "abby-cli"},
        {"azp": "other", "aud": ["account", "abby-cli"]},
        {"azp": "abby-cli", "aud": None},
    ],
)
def test_a_token_is_for_the_client_by_azp_or_by_audience(
    verifier: BridgeVerifier, claims: dict[str, Any]
) -> None:
    assert verifier.verify(f"Bearer {FACTORY.keycloak(**claims)}").login == "bob"


@pytest.mark.parametrize(
    ("claims", "party"),
    [
        ({"azp": "other"}, "other"),
        ({"azp": None}, "none"),
        ({"azp": "Abby-CLI"}, "Abby-CLI"),
        ({"azp": "abby-cli "}, "abby-cli "),
        ({"azp": "other", "aud": ["abby-cli-2"]}, "other"),
    ],
)
def test_a_token_for_another_client_is_refused_by_its_name(
    verifier: BridgeVerifier, claims: dict[str, Any], party: str
) -> None:
    hint = f'token not issued for client "abby-cli" (azp={party})'
    assert refusal(verifier, f"Bearer {FACTORY.keycloak(**claims)}") == hint


@pytest.mark.parametrize(
    "token",
    [
        "not-a-jwt",
        "a.b.c",
        FACTORY.user(),
        FACTORY.plugin(),
        FACTORY.keycloak(iss=f"{REALM}/"),
        FACTORY.keycloak(iss=None),
        FACTORY.keycloak(exp=NOW),
        FACTORY.keycloak(exp="never"),
        FACTORY.keycloak(nbf=NOW + 1),
        FACTORY.keycloak(iat="now"),
        FACTORY.keycloak(typ="refresh"),
        FACTORY.keycloak(typ="Offline"),
        FACTORY.keycloak(typ="Logout"),
        FACTORY.keycloak(typ=["Bearer"]),
        FACTORY.keycloak(header={"typ": "ID"}),
        FACTORY.keycloak(header={"typ": "Refresh"}),
        FACTORY.keycloak(header={"typ": "logout+jwt"}),
        FACTORY.keycloak(header={"typ": "vnd.backstage.user"}),
        FACTORY.keycloak(header={"typ": 5}),
        FACTORY.keycloak(preferred_username="", email=" ", sub=""),
        FACTORY.keycloak(preferred_username=5),
        FACTORY.keycloak(email={"a": 1}),
        FACTORY.keycloak(header={"kid": "unknown"}),
        FACTORY.keycloak(key=SigningKey("keycloak-key", SigningKey.rsa("evil").private, "RS256")),
        FACTORY.keycloak(key=SigningKey.ec("keycloak-key")),
        FACTORY.keycloak()[:-3],
        FACTORY.keycloak_key.token({"alg": "RS256", "kid": "keycloak-key"}, b"no json"),
    ],
    ids=numbered,
)
def test_everything_else_is_no_keycloak_token(verifier: BridgeVerifier, token: str) -> None:
    hint = refusal(verifier, f"Bearer {token}")
    assert hint.startswith("invalid Keycloak token: ")
    assert token not in hint


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"typ": None}, {}),
        ({"typ": "bearer"}, {}),
        ({}, {"typ": None}),
        ({}, {"typ": "at+jwt"}),
        ({"typ": None}, {"typ": "application/at+JWT"}),
    ],
)
def test_access_tokens_are_marked_in_several_ways(
    verifier: BridgeVerifier, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    token = FACTORY.keycloak(header=header, **claims)
    assert verifier.verify(f"Bearer {token}").login == "bob"


def test_a_trailing_slash_of_the_issuer_does_not_count(web: Web) -> None:
    verifier = BridgeVerifier(Bridge(True, f"{REALM}/"), web, clock=Clock())
    assert verifier.verify(f"Bearer {FACTORY.keycloak()}").login == "bob"
    assert web.asked == [CERTS]


def test_the_client_can_be_another_one(web: Web) -> None:
    verifier = BridgeVerifier(Bridge(True, REALM, "tool"), web, clock=Clock())
    assert verifier.verify(f"Bearer {FACTORY.keycloak(azp='tool')}").login == "bob"
    assert "(azp=abby-cli)" in refusal(verifier, f"Bearer {FACTORY.keycloak()}")


def test_a_realm_that_can_not_be_asked_is_told_apart_from_a_bad_token(
    verifier: BridgeVerifier, web: Web
) -> None:
    web.documents.clear()
    hint = refusal(verifier, f"Bearer {FACTORY.keycloak()}")
    assert hint == "the issuer's keys can't be read at present"


def test_a_name_that_is_no_text_is_none(verifier: BridgeVerifier) -> None:
    assert verifier.verify(f"Bearer {FACTORY.keycloak(name=5)}").name is None


def test_a_bridge_without_issuer_is_a_fault_of_whoever_builds_it(web: Web) -> None:
    with pytest.raises(ValueError, match="issuer"):
        BridgeVerifier(Bridge(enabled=True), web)
