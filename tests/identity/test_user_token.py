from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.config.settings import Discovery, DiscoveryEndpoint
from litellm_plugin.identity.principal import UserPrincipal
from tests.identity.barrier import (
    BACKSTAGE,
    BAD_USER,
    BOB,
    FACTORY,
    ILLEGAL,
    SETTINGS,
    USER_KEYS,
    Barrier,
)
from tests.identity.doubles import NOW, numbered
from tests.tokens import LIMITED_TYP, SigningKey, b64url, segment


class TestUsers:
    def test_a_user_token_is_its_user(self, barrier: Barrier) -> None:
        token = FACTORY.user("Grace.Hopper")
        who = barrier.admits(token)
        assert isinstance(who, UserPrincipal)
        assert who.entity_ref == "user:default/grace.hopper"
        assert who.token == token
        assert who.expires_at == NOW + 3600
        assert who.actor is None

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.user(aud="other"),
            FACTORY.user(aud=None),
            FACTORY.user(aud=["backstage", "x"]),
            FACTORY.user(iss="https://evil.example"),
            FACTORY.user(uip=None),
            FACTORY.user(header={"kid": None}),
            FACTORY.user(iat=NOW + 1000),
            FACTORY.user(nbf=NOW),
            FACTORY.user(exp=NOW + 1),
            FACTORY.user(exp=NOW + 10**9),
            FACTORY.user(header={"x-unknown": 1}),
            FACTORY.user(header={"typ": None}),
            FACTORY.user(header={"typ": "JWT"}),
            FACTORY.user(header={"typ": "VND.BACKSTAGE.USER"}),
            FACTORY.user(header={"typ": "JWT"}, iat=None),
        ],
        ids=numbered,
    )
    def test_what_backstage_admits_is_admitted(self, barrier: Barrier, token: str) -> None:
        who = barrier.admits(token)
        assert isinstance(who, UserPrincipal)
        assert (who.entity_ref, who.token) == (BOB, token)

    @pytest.mark.parametrize("sub", ["bob", "group:default/x", "Ünïcode/ref", "a b"])
    def test_any_subject_that_is_not_empty_will_do(self, barrier: Barrier, sub: str) -> None:
        who = barrier.admits(FACTORY.user(sub=sub))
        assert isinstance(who, UserPrincipal)
        assert who.entity_ref == sub

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.expired(),
            FACTORY.user(exp=NOW),
            FACTORY.user(nbf=NOW + 1),
            FACTORY.user(iat=None, uip="x"),
            FACTORY.user(exp=None, uip="x"),
            FACTORY.user(sub=None, uip="x"),
            FACTORY.user(exp="soon"),
            FACTORY.user(iat="now"),
            FACTORY.user(sub=5),
            FACTORY.user(sub=["user:default/bob"]),
            FACTORY.user(header={"kid": "unknown"}),
            FACTORY.user(key=SigningKey.ec("rig-user-key", "ES384")),
            FACTORY.user(key=SigningKey.rsa("rig-user-key")),
            FACTORY.user(header={"alg": None}),
            FACTORY.user(key=FACTORY.plugin_key),
            FACTORY.user_key.token(
                {"typ": "vnd.backstage.user", "alg": "ES256", "kid": "rig-user-key"}, b"no json"
            ),
            FACTORY.user()[:-1],
            FACTORY.user() + "=",
        ],
        ids=numbered,
    )
    def test_what_backstage_refuses_is_refused(self, barrier: Barrier, token: str) -> None:
        assert barrier.refusal(token) == BAD_USER
        assert barrier.refusal(token, allow_limited=True) == BAD_USER

    @pytest.mark.parametrize("sub", ["", None])
    def test_a_user_without_a_name_is_nobody(self, barrier: Barrier, sub: str | None) -> None:
        claims = {"sub": sub, "aud": "backstage", "iat": NOW, "exp": NOW + 60}
        header = {"typ": "vnd.backstage.user", "alg": "ES256", "kid": "rig-user-key"}
        token = FACTORY.user_key.token(header, claims)
        assert barrier.refusal(token) == "No user sub found in token"

    def test_an_old_token_must_expire_and_name_its_user(self, barrier: Barrier) -> None:
        old = {"typ": "JWT"}
        endless = FACTORY.user(header=old, exp=None, uip="x")
        assert barrier.refusal(endless) == "User token is missing expiration"
        nameless = FACTORY.user(header=old, sub=None, uip="x")
        assert barrier.refusal(nameless) == "No user sub found in token"

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.user(header={"typ": "JWT"}, aud=["backstage"]),
            FACTORY.user(header={"typ": "JWT"}, aud="Backstage"),
            FACTORY.user(header={"typ": "JWT"}, aud=None),
            FACTORY.user(header={"typ": "at+jwt"}, aud="litellm"),
        ],
        ids=numbered,
    )
    def test_another_typ_needs_backstage_as_its_audience(
        self, barrier: Barrier, token: str
    ) -> None:
        assert barrier.refusal(token) == ILLEGAL

    @pytest.mark.parametrize("typ", [["vnd.backstage.user"], 5, {}, True])
    def test_a_typ_that_is_no_text_is_refused(self, barrier: Barrier, typ: Any) -> None:
        assert barrier.refusal(FACTORY.user(header={"typ": typ})) == BAD_USER
        assert barrier.refusal(FACTORY.user(header={"typ": typ}, aud="x")) == ILLEGAL

    @pytest.mark.parametrize(
        "token",
        [
            "garbage",
            "a.b.c",
            "..",
            FACTORY.user() + ".x",
            FACTORY.user_key.token({"alg": "ES256", "kid": "rig-user-key"}, b"no json"),
            FACTORY.user_key.token({"alg": "ES256", "kid": "rig-user-key"}, [1]),
            "é" * 10,
            "\ud800",
        ],
        ids=numbered,
    )
    def test_what_no_kind_recognises_is_an_illegal_token(
        self, barrier: Barrier, token: str
    ) -> None:
        assert barrier.refusal(token) == ILLEGAL

    def test_users_are_refused_while_no_keys_can_be_had(
        self, barrier: Barrier, caplog: pytest.LogCaptureFixture
    ) -> None:
        barrier.web.documents.clear()
        with caplog.at_level(logging.WARNING):
            assert barrier.refusal(FACTORY.user()) == BAD_USER
        assert USER_KEYS in caplog.text
        barrier.web.documents.update(FACTORY.jwks())
        assert barrier.admits(FACTORY.user())

    def test_an_expired_token_is_no_reason_to_fetch_keys(self, barrier: Barrier) -> None:
        barrier.refusal(FACTORY.expired())
        assert barrier.web.asked == []

    def test_a_token_ends_while_it_is_in_use(self, barrier: Barrier) -> None:
        token = FACTORY.user()
        assert barrier.admits(token)
        barrier.clock.advance(3600)
        assert barrier.refusal(token) == BAD_USER

    def test_the_log_says_why_and_never_shows_the_token(
        self, barrier: Barrier, caplog: pytest.LogCaptureFixture
    ) -> None:
        token = FACTORY.expired()
        with caplog.at_level(logging.DEBUG):
            barrier.refusal(token)
        assert "expired" in caplog.text
        assert token[:40] not in caplog.text

    def test_where_the_auth_plugin_is_discovery_says(self) -> None:
        endpoints = (DiscoveryEndpoint("http://auth.example/{{pluginId}}", ("auth",)),)
        barrier = Barrier(replace(SETTINGS, discovery=Discovery(BACKSTAGE, endpoints)))
        barrier.refusal(FACTORY.user())
        assert barrier.web.asked == ["http://auth.example/auth/.well-known/jwks.json"]


class TestLimitedUserTokens:
    def test_alone_they_do_not_suffice(self, barrier: Barrier) -> None:
        assert barrier.refusal(FACTORY.limited()) == "Illegal limited user token"

    def test_where_allowed_they_are_the_user(self, barrier: Barrier) -> None:
        token = FACTORY.limited("carol")
        who = barrier.admits(token, allow_limited=True)
        assert who == UserPrincipal("user:default/carol", None, token, NOW + 3600)

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.limited(exp=NOW),
            FACTORY.limited(iat=None),
            FACTORY.limited(key=FACTORY.stranger_key),
        ],
        ids=numbered,
    )
    def test_one_that_does_not_hold_is_no_limited_token_at_all(
        self, barrier: Barrier, token: str
    ) -> None:
        assert barrier.refusal(token) == BAD_USER

    @pytest.mark.parametrize(
        ("kid", "sub"), [("rig-user-key", BOB), ("schlüssel-\u2028", 'user:default/"ö"\t\x7f')]
    )
    def test_the_one_made_of_a_user_token_is_what_backstage_signed(
        self, kid: str, sub: str
    ) -> None:
        key = SigningKey.ec(kid)
        barrier = Barrier()
        barrier.web.documents[USER_KEYS] = {"keys": [key.jwk()]}
        signed = ".".join(
            segment(json.dumps(part, ensure_ascii=False, separators=(",", ":")).encode())
            for part in (
                {"typ": LIMITED_TYP, "alg": "ES256", "kid": kid},
                {"sub": sub, "iat": NOW, "exp": NOW + 60},
            )
        )
        proof = b64url(key.signature(signed.encode(), "ES256"))
        user = barrier.admits(FACTORY.user(key=key, sub=sub, exp=NOW + 60, uip=proof))
        assert isinstance(user, UserPrincipal)
        assert user.limited_token == f"{signed}.{proof}"
        again = barrier.admits(user.limited_token, allow_limited=True)
        assert isinstance(again, UserPrincipal)
        assert again.entity_ref == sub

    @pytest.mark.parametrize("uip", [None, "", 5, ["x"]])
    def test_without_proof_there_is_none_and_the_user_is_known_all_the_same(
        self, barrier: Barrier, uip: Any
    ) -> None:
        who = barrier.admits(FACTORY.user(uip=uip))
        assert isinstance(who, UserPrincipal)
        assert who.limited_token is None

    def test_of_another_old_token_there_is_none(self, barrier: Barrier) -> None:
        who = barrier.admits(FACTORY.wrong_typ())
        assert isinstance(who, UserPrincipal)
        assert who.limited_token is None
