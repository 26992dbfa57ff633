"""RFC 8725's list of attacks on tokens, and Backstage's own, on every route."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.client import PluginClient
from tests.fakes import Asked, FakeBackstage, FakeKeycloak, FakeLiteLLM, Network
from tests.rig import Rig
from tests.security.surface import PUBLIC, surfaces
from tests.standin import IDS
from tests.tokens import LEGACY_SECRET, LIMITED_TYP, PLUGIN_TYP, USER_TYP, TokenFactory, b64url

Forge = Callable[[TokenFactory], str]

EVIL = "https://evil.example/keys"


def _header(**over: Any) -> dict[str, Any]:
    return {"typ": USER_TYP, "alg": "ES256", "kid": "rig-user-key", **over}


def _padded(tokens: TokenFactory) -> str:
    """Return a token that is larger than any that is read."""
    return tokens.user(ent=["group:default/" + "x" * 12] * 900)


def _deep(tokens: TokenFactory) -> str:
    claims = b'{"sub":"user:default/bob","iat":1,"exp":9999999999,"x":' + b"[" * 5000
    return tokens.user_key.token(_header(), claims + b"]" * 5000 + b"}")


def _resigned(tokens: TokenFactory, part: int, **over: Any) -> str:
    """Return a good token with members of its header (0) or claims (1) changed afterwards."""
    segments = tokens.user().split(".")
    decoded = json.loads(base64.urlsafe_b64decode(segments[part] + "=="))
    segments[part] = b64url(json.dumps({**decoded, **over}).encode())
    return ".".join(segments)


def _der(tokens: TokenFactory) -> str:
    """Return a token whose signature is DER, as OpenSSL writes it, instead of r and s."""
    message = tokens.user().rpartition(".")[0]
    private = tokens.user_key.private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return f"{message}.{b64url(private.sign(message.encode(), ec.ECDSA(hashes.SHA256())))}"


FORGERIES: dict[str, Forge] = {
    "none": lambda t: t.alg_none(),
    "none, in another case": lambda t: _resigned(t, 0, alg="nOnE"),
    "none, with a signature": lambda t: t.alg_none() + t.user().rpartition(".")[2],
    "a signature of zeros": lambda t: t.user().rpartition(".")[0] + "." + b64url(bytes(64)),
    "no signature": lambda t: t.user().rpartition(".")[0] + ".",
    "two segments": lambda t: t.user().rpartition(".")[0],
    "HMAC with the public key": lambda t: t.hs256(),
    "HMAC with the public key, 512": lambda t: t.user(header={"alg": "HS512"}),
    "HMAC with the legacy secret": lambda t: t.legacy(
        sub="user:default/bob", aud="backstage", iat=1
    ),
    "another key under the same kid": lambda t: t.other_key(),
    "another algorithm of the same key": lambda t: _resigned(t, 0, alg="ES384"),
    "RSA instead": lambda t: t.user(header={"alg": "RS256"}, key=t.keycloak_key),
    "a DER signature": _der,
    "crit": lambda t: t.user(header={"crit": ["exp"]}),
    "crit, empty": lambda t: t.user(header={"crit": []}),
    "unencoded payload": lambda t: t.user(header={"crit": ["b64"], "b64": False}),
    "kid with a path": lambda t: t.user(header={"kid": "../../../../dev/null"}),
    "kid with SQL": lambda t: t.user(header={"kid": "x' UNION SELECT 'secret';--"}),
    "kid with a URL": lambda t: t.user(header={"kid": EVIL}),
    "kid that is no text": lambda t: t.user(header={"kid": {"$ne": None}}),
    "jku": lambda t: t.user(key=t.stranger_key, header={"jku": EVIL}),
    "x5u": lambda t: t.user(key=t.stranger_key, header={"x5u": EVIL}),
    "x5c": lambda t: t.user(key=t.stranger_key, header={"x5c": ["MIIB"]}),
    "jwk": lambda t: t.user(key=t.stranger_key, header={"jwk": t.stranger_key.jwk()}),
    "too long": _padded,
    "too deep": _deep,
    "nested": lambda t: t.user_key.token(_header(cty="JWT"), t.user().encode()),
    "encrypted": lambda t: ".".join(
        [b64url(b'{"alg":"dir","enc":"A128GCM"}'), "", "AAAA", "AAAA", "AAAA"]
    ),
    "compressed": lambda t: t.user(key=t.stranger_key, header={"zip": "DEF"}),
    "claims changed": lambda t: _resigned(t, 1, sub="user:default/alice"),
    "header changed": lambda t: _resigned(t, 0, typ=LIMITED_TYP),
    "a name twice": lambda t: t.user_key.token(
        _header(), b'{"sub":"user:default/bob","sub":"user:default/alice","iat":1,"exp":9999999999}'
    ),
    "a typ of nobody": lambda t: t.plugin(header={"typ": "vnd.backstage.plugin2"}),
    "an expired one": lambda t: t.expired(),
    "one without an end": lambda t: t.user(exp=None, uip="x"),
    "an endless one": lambda t: t.user_key.token(
        _header(), b'{"sub":"user:default/bob","iat":1,"exp":1e999}'
    ),
    "one of tomorrow": lambda t: t.user(nbf=int(t.clock()) + 86_400),
    "a limited one": lambda t: t.limited(),
    "a plugin's, for another": lambda t: t.plugin(aud="catalog"),
    "a plugin's, for others": lambda t: t.plugin(aud=["catalog", "permission"]),
    "a plugin's, for none": lambda t: t.plugin(aud=[]),
    "a plugin's, for an object": lambda t: t.plugin(aud={"litellm": 1}),
    "a plugin's, in another's name": lambda t: t.plugin(sub="catalog"),
    "a plugin's, in our own name": lambda t: t.plugin(sub="litellm"),
    "a plugin's, of the user key": lambda t: t.plugin(key=t.user_key),
    "a plugin's, as a user's": lambda t: t.plugin(header={"typ": USER_TYP}),
    "a user's, as a plugin's": lambda t: t.user(header={"typ": PLUGIN_TYP}),
    "obo forged": lambda t: t.plugin(obo=t.limited("alice", key=t.plugin_key)),
    "obo of another key": lambda t: t.plugin(obo=t.limited("alice", key=t.stranger_key)),
    "obo without a signature": lambda t: t.plugin(obo=t.limited("alice", header={"alg": "none"})),
    "obo that is over": lambda t: t.plugin(obo=t.expired("alice")),
    "obo that is a name": lambda t: t.plugin(obo="user:default/alice"),
    "obo that is a plugin's": lambda t: t.plugin(obo=t.plugin()),
    "obo in a forged token": lambda t: t.plugin(obo=t.limited("alice"), key=t.stranger_key),
    "legacy, of another secret": lambda t: t.legacy(LEGACY_SECRET + b"x"),
    "Keycloak's": lambda t: t.keycloak(),
    "the master key": lambda t: "sk-contract-master-key",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_token_that_does_not_hold_is_refused(
    rig: Rig, tokens: TokenFactory, asked: list[Asked], forgery: str
) -> None:
    credentials = {"Authorization": f"Bearer {FORGERIES[forgery](tokens)}"}
    client = PluginClient(rig.app)
    routes = surfaces(rig.app)
    some = list(FORGERIES).index(forgery) % 8
    for route in routes[some::8]:  # all of them, if not each with each
        if route.rule in PUBLIC or (route.bridged and forgery == "Keycloak's"):
            continue
        path = route.path(IDS)
        answer = client.request(route.method, path, json={}, headers=credentials)
        assert answer.status_code == 401, str(route)
    assert asked == []


@pytest.mark.parametrize("authorization", [None, "Bearer x", "Basic YWxpY2U6eA=="])
def test_every_route_but_the_public_ones_wants_a_token(
    rig: Rig, asked: list[Asked], authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    client = PluginClient(rig.app)
    for route in surfaces(rig.app):
        path = route.path(IDS)
        answer = client.request(route.method, path, json={}, headers=headers)
        assert answer.status_code == (200 if route.rule in PUBLIC else 401), str(route)
    # Readiness looks whether LiteLLM works, and shows it no key.
    assert {request.path for request in asked} <= {"/health/readiness"}
    assert not any("Authorization" in request.headers for request in asked)


BRIDGE: dict[str, dict[str, Any]] = {
    "none": {"header": {"alg": "none"}},
    "HMAC with the public key": {"header": {"alg": "HS256"}},
    "crit": {"header": {"crit": ["exp"]}},
    "an ID token": {"typ": "ID"},
    "a refresh token": {"typ": "Refresh"},
    "an ID token by its header": {"header": {"typ": "id+jwt"}},
    "of another issuer": {"iss": "https://evil.example/realms/rig"},
    "of a realm next door": {"iss": "http://127.0.0.1:7080/realms/rig2"},
    "for another client": {"azp": "other-cli"},
    "without an end": {"exp": None},
    "over": {"exp": 1},
    "of nobody": {"preferred_username": None, "email": None, "sub": None},
    "of a list": {"preferred_username": ["alice"]},
    "of somebody behind a slash": {"preferred_username": "x/alice"},
    "of an address behind a slash": {"preferred_username": None, "email": "x/alice@evil.example"},
    "of a user like an entity ref": {"preferred_username": "user:default/alice"},
    "of a domain alone": {"preferred_username": "@example.com"},
}


@pytest.mark.parametrize("attack", BRIDGE)
def test_the_bridge_takes_no_other_token(
    rig: Rig, tokens: TokenFactory, asked: list[Asked], attack: str
) -> None:
    credentials = {"Authorization": f"Bearer {tokens.keycloak(**BRIDGE[attack])}"}
    client = PluginClient(rig.app)
    for method, path in (("GET", "/bridge/keys"), ("POST", "/bridge/keys"), ("GET", "/keys")):
        answer = client.request(method, path, json={"alias": "a"}, headers=credentials)
        assert answer.status_code == 401, f"{method} {path}"
    assert asked == []


def test_nothing_in_a_token_says_where_keys_are_fetched(
    client: PluginClient, network: Network, tokens: TokenFactory, litellm: FakeLiteLLM
) -> None:
    backstage, keycloak = network.hosts[1:]
    assert isinstance(backstage, FakeBackstage)
    assert isinstance(keycloak, FakeKeycloak)
    for name in ("jku", "x5u", "jwk", "x5c", "kid", "iss"):
        header = {name: EVIL, "kid": EVIL}
        for forged in (
            tokens.user(key=tokens.stranger_key, header=header),
            tokens.plugin(key=tokens.stranger_key, header=header),
            tokens.keycloak(key=tokens.stranger_key, header={**header, "alg": "ES256"}),
            tokens.user(key=tokens.stranger_key, iss=EVIL),
        ):
            headers = {"Authorization": f"Bearer {forged}"}
            assert client.get("/keys", headers=headers).status_code == 401
            assert client.get("/bridge/keys", headers=headers).status_code == 401
    assert network.strays == []
    assert {call.path for call in backstage.calls} <= {
        "/.well-known/jwks.json",
        "/.backstage/auth/v1/jwks.json",
    }
    assert litellm.calls == []
