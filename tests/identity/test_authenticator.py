from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.config.settings import (
    AccessRestriction,
    Discovery,
    DiscoveryEndpoint,
    ExternalAccess,
    JwksAccess,
    LegacyAccess,
    Service,
    Settings,
    StaticAccess,
)
from litellm_plugin.errors import NotAllowed, Unauthenticated
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.jwt import PrivateKey
from litellm_plugin.identity.plugin_token import MAX_KEY_SETS
from litellm_plugin.identity.principal import Principal, ServicePrincipal, UserPrincipal
from litellm_plugin.identity.signing import PluginKeys, PluginTokens
from tests.identity.doubles import NOW, Clock, Web, numbered
from tests.tokens import (
    LEGACY_SECRET,
    LIMITED_TYP,
    PLUGIN_TYP,
    STATIC_TOKEN,
    SigningKey,
    TokenFactory,
    b64url,
    segment,
)

BACKSTAGE = "http://127.0.0.1:7007"
USER_KEYS = f"{BACKSTAGE}/api/auth/.well-known/jwks.json"
RIG_KEYS = f"{BACKSTAGE}/api/rig/.backstage/auth/v1/jwks.json"
REALM = "http://127.0.0.1:7080/realms/rig"
BOB = "user:default/bob"

BAD_USER = "Failed user token verification"
BAD_PLUGIN = "Failed plugin token verification"
ILLEGAL = "Illegal token"


def no_jwks(plugin: str) -> str:
    return (
        f"Received a plugin token where the source '{plugin}' plugin unexpectedly does not have "
        "a JWKS endpoint. The target plugin needs to be migrated to be installed in an app using "
        "the new backend system."
    )


# The entries of tests/contract/base.yaml.
EXTERNAL: tuple[ExternalAccess, ...] = (
    StaticAccess(STATIC_TOKEN, "rig-full"),
    StaticAccess(
        "rig-static-catalog-only-token", "rig-catalog-only", (AccessRestriction("catalog"),)
    ),
    StaticAccess(
        "rig-static-litellm-read-token",
        "rig-litellm-read",
        (
            AccessRestriction("catalog"),
            AccessRestriction("litellm", actions=frozenset({"read"})),
        ),
    ),
    LegacyAccess(LEGACY_SECRET, "rig-legacy"),
    JwksAccess(
        f"{REALM}/protocol/openid-connect/certs",
        issuers=(REALM,),
        audiences=("backstage-external",),
        algorithms=("RS256",),
        subject_prefix="kc",
    ),
)

SETTINGS = Settings(
    base_url="http://litellm.example",
    master_key="sk-test",
    discovery=Discovery(BACKSTAGE),
    external_access=EXTERNAL,
)

OWN_KEYS = PluginKeys(PrivateKey.generate())
CLOCK = Clock()
FACTORY = TokenFactory(clock=CLOCK)


class Barrier:
    """An authenticator and the world around it."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.web = Web(FACTORY.jwks())
        self.clock = Clock()
        self.timer = Clock(0)
        self.authenticator = Authenticator(
            settings, self.web, OWN_KEYS, clock=self.clock, timer=self.timer
        )

    def admits(self, token: str, **options: Any) -> Principal:
        return self.authenticator.authenticate(f"Bearer {token}", **options)

    def refusal(self, token: str, **options: Any) -> str:
        with pytest.raises(Unauthenticated) as caught:
            self.admits(token, **options)
        assert caught.value.status == 401
        return caught.value.message


@pytest.fixture
def barrier() -> Barrier:
    return Barrier()


def with_external(*entries: ExternalAccess) -> Barrier:
    return Barrier(replace(SETTINGS, external_access=entries))


class TestTheHeader:
    @pytest.mark.parametrize(
        "authorization",
        [
            None,
            "",
            "foo",
            "Basic x",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer\ta",
            "Bearer \ta",
            "Bearer:a",
            "NotBearer a",
            f"Bearer {STATIC_TOKEN} x",
            STATIC_TOKEN,
        ],
    )
    def test_no_bearer_token_is_no_credentials(
        self, barrier: Barrier, authorization: str | None
    ) -> None:
        with pytest.raises(Unauthenticated, match=r"\AMissing credentials\Z"):
            barrier.authenticator.authenticate(authorization)

    @pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "bEaReR   "])
    def test_the_scheme_may_have_any_case_and_several_spaces(
        self, barrier: Barrier, scheme: str
    ) -> None:
        who = barrier.authenticator.authenticate(scheme + FACTORY.user("carol"))
        assert isinstance(who, UserPrincipal)
        assert who.entity_ref == "user:default/carol"

    def test_spaces_around_the_header_do_not_matter(self, barrier: Barrier) -> None:
        assert barrier.authenticator.authenticate(f" Bearer {STATIC_TOKEN} ")


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
            FACTORY.other_key(),
            FACTORY.user(header={"kid": "unknown"}),
            FACTORY.user(header={"kid": 5}),
            FACTORY.user(header={"kid": "../../rig"}),
            FACTORY.alg_none(),
            FACTORY.alg_none() + "AAAA",
            FACTORY.hs256(),
            FACTORY.user(key=SigningKey.ec("rig-user-key", "ES384")),
            FACTORY.user(key=SigningKey.rsa("rig-user-key")),
            FACTORY.user(header={"alg": None}),
            FACTORY.user(header={"crit": ["exp"]}),
            FACTORY.user(header={"crit": ["b64"], "b64": False}),
            FACTORY.user(key=FACTORY.stranger_key, header={"jwk": FACTORY.stranger_key.jwk()}),
            FACTORY.user(key=FACTORY.stranger_key, header={"jku": "https://evil.example/keys"}),
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

    def test_the_header_never_names_where_keys_come_from(self, barrier: Barrier) -> None:
        for name in ("jku", "x5u"):
            header = {name: "https://evil.example/keys", "kid": "https://evil.example/keys"}
            assert barrier.refusal(FACTORY.user(header=header)) == BAD_USER
        assert set(barrier.web.asked) == {USER_KEYS}

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

    def test_a_typ_that_is_nearly_right_is_another_one(self, barrier: Barrier) -> None:
        header = {"typ": "vnd.backstage.user "}
        assert isinstance(barrier.admits(FACTORY.user(header=header)), UserPrincipal)
        assert barrier.refusal(FACTORY.user(header=header, aud="x")) == ILLEGAL

    @pytest.mark.parametrize("typ", [["vnd.backstage.user"], 5, {}, True])
    def test_a_typ_that_is_no_text_is_refused(self, barrier: Barrier, typ: Any) -> None:
        assert barrier.refusal(FACTORY.user(header={"typ": typ})) == BAD_USER
        assert barrier.refusal(FACTORY.user(header={"typ": typ}, aud="x")) == ILLEGAL

    @pytest.mark.parametrize(
        "token",
        [
            "garbage",
            "a.b",
            "a.b.c",
            "a.b.c.d",
            "..",
            FACTORY.user().rpartition(".")[0],
            FACTORY.user() + ".x",
            FACTORY.user(padding="x" * 16_384),
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

    def test_a_rotated_user_key_is_followed(self, barrier: Barrier) -> None:
        assert barrier.admits(FACTORY.user())
        fresh = SigningKey.ec("fresh")
        barrier.web.documents[USER_KEYS] = {"keys": [FACTORY.user_key.jwk(), fresh.jwk()]}
        assert barrier.admits(FACTORY.user(key=fresh))
        assert barrier.admits(FACTORY.user())

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

    def test_an_old_token_without_typ_is_its_own(self, barrier: Barrier) -> None:
        token = FACTORY.user(header={"typ": None})
        who = barrier.admits(token)
        assert isinstance(who, UserPrincipal)
        assert who.limited_token == token

    def test_of_another_old_token_there_is_none(self, barrier: Barrier) -> None:
        who = barrier.admits(FACTORY.wrong_typ())
        assert isinstance(who, UserPrincipal)
        assert who.limited_token is None


class TestPlugins:
    def test_a_plugin_is_a_service(self, barrier: Barrier) -> None:
        assert barrier.admits(FACTORY.plugin()) == ServicePrincipal("plugin:rig")

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.plugin(aud=["catalog", "litellm"]),
            FACTORY.plugin(header={"kid": None}),
            FACTORY.plugin(exp=NOW + 10**9),
            FACTORY.plugin(obo=""),
        ],
        ids=numbered,
    )
    def test_what_backstage_admits_is_admitted(self, barrier: Barrier, token: str) -> None:
        assert barrier.admits(token) == ServicePrincipal("plugin:rig")

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.plugin(aud="catalog"),
            FACTORY.plugin(aud=["catalog"]),
            FACTORY.plugin(aud="LITELLM"),
            FACTORY.plugin(aud={"litellm": True}),
            FACTORY.plugin(exp=NOW),
            FACTORY.plugin(iat=None),
            FACTORY.plugin(exp=None),
            FACTORY.plugin(nbf=NOW + 1),
            FACTORY.plugin(key=FACTORY.user_key),
            FACTORY.plugin(header={"kid": "unknown"}),
            FACTORY.plugin(header={"alg": "none"}),
            FACTORY.plugin(header={"alg": "HS256"}),
            FACTORY.plugin(header={"crit": ["obo"]}),
            FACTORY.plugin_key.token(
                {"typ": PLUGIN_TYP, "alg": "ES256", "kid": "rig-plugin-key"}, b"no json"
            ),
            FACTORY.plugin_key.token(
                {"typ": PLUGIN_TYP, "alg": "ES256", "kid": "rig-plugin-key"}, ["rig"]
            ),
            # No audience at all.
            FACTORY.plugin_key.token(
                {"typ": PLUGIN_TYP, "alg": "ES256", "kid": "rig-plugin-key"},
                {"sub": "rig", "iat": NOW, "exp": NOW + 60},
            ),
        ],
        ids=numbered,
    )
    def test_what_backstage_refuses_is_refused(self, barrier: Barrier, token: str) -> None:
        assert barrier.refusal(token) == BAD_PLUGIN

    @pytest.mark.parametrize(
        "sub", ["a/b", "..", "a.b", "rig\n", "rig ", "ünï", "a?b", "a%2fb", "a" * 129]
    )
    def test_a_subject_that_is_no_plugin_id_is_never_made_into_a_url(
        self, barrier: Barrier, sub: str
    ) -> None:
        message = "Invalid plugin token: forbidden subject format"
        assert barrier.refusal(FACTORY.plugin(sub=sub)) == message
        assert barrier.web.asked == []

    def test_the_subject_must_be_there(self, barrier: Barrier) -> None:
        header = {"typ": PLUGIN_TYP, "alg": "ES256", "kid": "rig-plugin-key"}
        assert barrier.refusal(FACTORY.plugin(sub="")) == "Invalid plugin token: missing subject"
        nameless = FACTORY.plugin_key.token(header, {"aud": "litellm", "exp": NOW + 60})
        assert barrier.refusal(nameless) == no_jwks("undefined")
        assert barrier.web.asked == []

    def test_a_plugin_without_keys_is_refused_and_asked_again_next_time(
        self, barrier: Barrier
    ) -> None:
        token = FACTORY.plugin(sub="other")
        assert barrier.refusal(token) == no_jwks("other")
        url = f"{BACKSTAGE}/api/other/.backstage/auth/v1/jwks.json"
        barrier.web.documents[url] = {"keys": [FACTORY.plugin_key.jwk()]}
        assert barrier.admits(token) == ServicePrincipal("plugin:other")

    def test_a_plugin_can_not_speak_for_another_one(self, barrier: Barrier) -> None:
        url = f"{BACKSTAGE}/api/other/.backstage/auth/v1/jwks.json"
        barrier.web.documents[url] = {"keys": [SigningKey.ec("rig-plugin-key").jwk()]}
        assert barrier.refusal(FACTORY.plugin(sub="other")) == BAD_PLUGIN

    def test_a_plugin_s_keys_prove_no_user(self, barrier: Barrier) -> None:
        assert barrier.refusal(FACTORY.user(key=FACTORY.plugin_key)) == BAD_USER
        forged = FACTORY.plugin(obo=FACTORY.limited(key=FACTORY.plugin_key))
        assert barrier.refusal(forged) == BAD_USER

    def test_the_user_s_key_proves_no_plugin(self, barrier: Barrier) -> None:
        assert barrier.refusal(FACTORY.plugin(key=FACTORY.user_key)) == BAD_PLUGIN

    def test_the_typ_of_a_plugin_token_is_spelled_exactly(self, barrier: Barrier) -> None:
        assert barrier.refusal(FACTORY.plugin(header={"typ": PLUGIN_TYP.upper()})) == ILLEGAL

    def test_the_plugin_id_can_be_another_one(self) -> None:
        barrier = Barrier(replace(SETTINGS, service=Service(plugin_id="litellm-flask")))
        assert barrier.refusal(FACTORY.plugin()) == BAD_PLUGIN
        assert barrier.admits(FACTORY.plugin(aud="litellm-flask"))

    def test_our_own_tokens_hold_without_a_request(self, barrier: Barrier) -> None:
        ours = PluginTokens(OWN_KEYS, "litellm", CLOCK)
        assert barrier.admits(ours.issue("litellm")) == ServicePrincipal("plugin:litellm")
        assert barrier.refusal(ours.issue("catalog")) == BAD_PLUGIN
        assert barrier.refusal(FACTORY.plugin(sub="litellm")) == BAD_PLUGIN
        assert barrier.web.asked == []

    def test_keys_of_a_plugin_are_read_once(self, barrier: Barrier) -> None:
        for _ in range(3):
            barrier.admits(FACTORY.plugin())
        assert barrier.web.asked == [RIG_KEYS]

    def test_keys_of_made_up_plugins_push_no_good_ones_out(self, barrier: Barrier) -> None:
        barrier.admits(FACTORY.plugin())
        for number in range(MAX_KEY_SETS + 5):
            barrier.refusal(FACTORY.plugin(sub=f"made-up-{number}"))
        barrier.admits(FACTORY.plugin())
        assert barrier.web.asked.count(RIG_KEYS) == 1

    def test_the_keys_of_a_limited_number_of_plugins_are_kept(self, barrier: Barrier) -> None:
        def url(number: int) -> str:
            return f"{BACKSTAGE}/api/p{number}/.backstage/auth/v1/jwks.json"

        for number in range(MAX_KEY_SETS + 1):
            barrier.web.documents[url(number)] = {"keys": [FACTORY.plugin_key.jwk()]}
            barrier.admits(FACTORY.plugin(sub=f"p{number}"))
            barrier.admits(FACTORY.plugin(sub="p0"))  # used, so it is not the one to go
        barrier.admits(FACTORY.plugin(sub="p1"))
        fetches = [barrier.web.asked.count(url(number)) for number in (0, 1, 2)]
        assert fetches == [1, 2, 1]

    def test_plugins_that_call_at_once_share_one_fetch(self, barrier: Barrier) -> None:
        all_in = threading.Barrier(4)

        def call(_: int) -> Principal:
            all_in.wait(10)
            return barrier.admits(FACTORY.plugin())

        with ThreadPoolExecutor(4) as pool:
            assert set(pool.map(call, range(4))) == {ServicePrincipal("plugin:rig")}
        assert barrier.web.asked == [RIG_KEYS]


class TestOnBehalfOfAUser:
    def test_the_principal_is_the_user_with_the_plugin_as_actor(self, barrier: Barrier) -> None:
        limited = FACTORY.limited("carol", exp=NOW + 60)
        who = barrier.admits(FACTORY.plugin(obo=limited))
        assert who == UserPrincipal(
            "user:default/carol", None, limited, NOW + 60, actor="plugin:rig"
        )

    def test_a_whole_user_token_will_do_and_is_not_handed_on(self, barrier: Barrier) -> None:
        token = FACTORY.user("carol")
        direct, behalf = barrier.admits(token), barrier.admits(FACTORY.plugin(obo=token))
        assert isinstance(direct, UserPrincipal)
        assert behalf == replace(direct, token=None, actor="plugin:rig")

    @pytest.mark.parametrize(
        "obo",
        [
            FACTORY.limited(exp=NOW),
            FACTORY.limited(key=FACTORY.stranger_key),
            FACTORY.limited(header={"alg": "none"}),
            FACTORY.expired(),
            FACTORY.hs256(),
        ],
        ids=numbered,
    )
    def test_a_user_s_token_that_does_not_hold_is_never_no_user(
        self, barrier: Barrier, obo: str
    ) -> None:
        assert barrier.refusal(FACTORY.plugin(obo=obo)) == BAD_USER

    @pytest.mark.parametrize(
        "obo",
        ["x", "a.b.c", FACTORY.plugin(), STATIC_TOKEN, FACTORY.legacy(), 5, 0, False, True, [], {}],
        ids=numbered,
    )
    def test_what_is_no_user_s_token_is_refused(self, barrier: Barrier, obo: Any) -> None:
        message = "Invalid user token in plugin token obo claim"
        assert barrier.refusal(FACTORY.plugin(obo=obo)) == message

    def test_the_plugin_must_hold_too(self, barrier: Barrier) -> None:
        token = FACTORY.plugin(obo=FACTORY.limited(), key=FACTORY.stranger_key)
        assert barrier.refusal(token) == BAD_PLUGIN


class TestExternalAccess:
    def test_a_static_token_is_its_subject(self, barrier: Barrier) -> None:
        assert barrier.admits(STATIC_TOKEN) == ServicePrincipal("rig-full")

    @pytest.mark.parametrize(
        "token",
        [STATIC_TOKEN[:-1], STATIC_TOKEN + "x", STATIC_TOKEN.upper(), STATIC_TOKEN.encode().hex()],
        ids=numbered,
    )
    def test_a_static_token_is_compared_as_a_whole(self, barrier: Barrier, token: str) -> None:
        assert barrier.refusal(token) == ILLEGAL

    def test_a_token_for_another_plugin_is_forbidden(self, barrier: Barrier) -> None:
        with pytest.raises(NotAllowed) as caught:
            barrier.admits("rig-static-catalog-only-token")
        assert caught.value.status == 403
        assert caught.value.message == "This token's access is restricted to plugin(s) 'catalog'"

    def test_several_plugins_are_named_in_order(self) -> None:
        restrictions = (AccessRestriction("search"), AccessRestriction("catalog"))
        barrier = with_external(StaticAccess("static-token", "s", restrictions))
        with pytest.raises(NotAllowed, match=r"plugin\(s\) 'search', 'catalog'\Z"):
            barrier.admits("static-token")

    def test_restrictions_to_nothing_allow_nothing(self) -> None:
        barrier = with_external(StaticAccess("static-token", "s", ()))
        with pytest.raises(NotAllowed):
            barrier.admits("static-token")

    def test_the_restrictions_inside_this_plugin_travel_along(self, barrier: Barrier) -> None:
        assert barrier.admits("rig-static-litellm-read-token") == ServicePrincipal(
            "rig-litellm-read", (AccessRestriction("litellm", actions=frozenset({"read"})),)
        )

    def test_the_first_entry_that_matches_decides(self) -> None:
        barrier = with_external(
            StaticAccess("static-token", "first"), StaticAccess("static-token", "second")
        )
        assert barrier.admits("static-token") == ServicePrincipal("first")

    @pytest.mark.parametrize("claims", [{}, {"exp": None}, {"aud": ""}, {"nbf": NOW}])
    def test_a_legacy_token_is_its_subject(self, barrier: Barrier, claims: dict[str, Any]) -> None:
        assert barrier.admits(FACTORY.legacy(**claims)) == ServicePrincipal("rig-legacy")

    @pytest.mark.parametrize(
        "token",
        [
            FACTORY.legacy(b"another secret, long enough"),
            FACTORY.legacy(sub="someone"),
            FACTORY.legacy(sub=None),
            FACTORY.legacy(aud="litellm"),
            FACTORY.legacy()[:-2],
            FACTORY.user_key.token(
                {"alg": "ES256", "kid": "rig-user-key"}, {"sub": "backstage-server"}
            ),
            FACTORY.user_key.token({"alg": "none"}, {"sub": "backstage-server"}),
            FACTORY.user_key.token({"alg": "HS256"}, {"sub": "backstage-server"}),
        ],
        ids=numbered,
    )
    def test_another_token_is_no_legacy_token(self, barrier: Barrier, token: str) -> None:
        assert barrier.refusal(token) == ILLEGAL

    @pytest.mark.parametrize("claims", [{"exp": NOW}, {"nbf": NOW + 1}, {"exp": "x"}])
    def test_a_legacy_token_that_is_over_is_refused_and_no_server_error(
        self, barrier: Barrier, claims: dict[str, Any]
    ) -> None:
        assert barrier.refusal(FACTORY.legacy(**claims)) == "Failed external token verification"

    def test_legacy_secrets_are_tried_in_turn(self) -> None:
        secrets = [b"the first secret of all", b"and another one besides"]
        barrier = with_external(
            *(LegacyAccess(secret, secret.decode()[:7]) for secret in secrets),
        )
        for secret in secrets:
            subject = secret.decode()[:7]
            assert barrier.admits(FACTORY.legacy(secret)) == ServicePrincipal(subject)

    @pytest.mark.parametrize(
        "claims",
        [{}, {"exp": None}, {"aud": ["x", "backstage-external"]}, {"obo": FACTORY.limited()}],
    )
    def test_a_token_of_an_external_issuer_is_its_subject(
        self, barrier: Barrier, claims: dict[str, Any]
    ) -> None:
        token = FACTORY.keycloak(**{"aud": "backstage-external", "sub": "svc", **claims})
        assert barrier.admits(token) == ServicePrincipal("external:kc:svc")

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "https://evil.example"},
            {"iss": None},
            {"iss": [REALM]},
            {"aud": "account"},
            {"aud": None},
            {"exp": NOW},
            {"nbf": NOW + 1},
            {"sub": None},
            {"sub": ""},
            {"sub": 5},
            {"header": {"alg": "PS256"}},
            {"header": {"alg": "none"}},
            {"header": {"alg": "HS256"}},
            {"header": {"kid": "unknown"}},
            {"header": {"crit": ["exp"]}},
            {"key": SigningKey("keycloak-key", SigningKey.rsa("stranger").private, "RS256")},
        ],
    )
    def test_another_token_of_it_is_none(self, barrier: Barrier, claims: dict[str, Any]) -> None:
        token = FACTORY.keycloak(**{"aud": "backstage-external", **claims})
        assert barrier.refusal(token) == ILLEGAL

    def test_an_external_issuer_can_not_make_users(self, barrier: Barrier) -> None:
        token = FACTORY.keycloak(aud="backstage", sub=BOB)
        assert barrier.refusal(token) == BAD_USER

    def test_without_issuer_audience_algorithm_and_prefix_any_will_do(self) -> None:
        barrier = with_external(JwksAccess(f"{REALM}/protocol/openid-connect/certs"))
        token = FACTORY.keycloak(sub="svc", iss=None, aud=None)
        assert barrier.admits(token) == ServicePrincipal("external:svc")

    def test_symmetric_algorithms_can_not_be_allowed(self) -> None:
        barrier = with_external(
            JwksAccess(f"{REALM}/protocol/openid-connect/certs", algorithms=("HS256", "none"))
        )
        for algorithm in ("HS256", "none", "RS256"):
            assert barrier.refusal(FACTORY.keycloak(header={"alg": algorithm})) == ILLEGAL

    def test_an_issuer_that_is_down_does_not_stand_in_the_way_of_the_next_entry(self) -> None:
        barrier = with_external(
            JwksAccess("http://down.example/keys"),
            JwksAccess(f"{REALM}/protocol/openid-connect/certs"),
            StaticAccess("static-token", "s"),
        )
        assert barrier.admits(FACTORY.keycloak(sub="svc")) == ServicePrincipal("external:svc")
        assert barrier.admits("static-token") == ServicePrincipal("s")

    def test_a_restricted_legacy_or_jwks_entry_is_restricted_too(self) -> None:
        catalog = (AccessRestriction("catalog"),)
        barrier = with_external(
            LegacyAccess(LEGACY_SECRET, "l", catalog),
            JwksAccess(f"{REALM}/protocol/openid-connect/certs", restrictions=catalog),
        )
        for token in (FACTORY.legacy(), FACTORY.keycloak()):
            with pytest.raises(NotAllowed):
                barrier.admits(token)

    def test_without_entries_only_backstage_s_own_tokens_hold(self) -> None:
        barrier = with_external()
        assert barrier.refusal(STATIC_TOKEN) == ILLEGAL
        assert barrier.admits(FACTORY.user())


ODD: tuple[Any, ...] = (None, True, 5, -1.5, 1e300, "x", "", [], ["a", None], {}, {"sub": "a"})


@pytest.mark.parametrize("claim", ["sub", "aud", "iss", "iat", "exp", "nbf", "obo", "uip"])
@pytest.mark.parametrize("token", [FACTORY.user, FACTORY.plugin])
def test_whatever_a_signed_token_claims_it_names_a_principal_or_is_refused(
    barrier: Barrier, token: Callable[..., str], claim: str
) -> None:
    for value in ODD:
        with suppress(Unauthenticated):
            who = barrier.admits(token(**{"uip": "x", claim: value}))
            assert who.entity_ref if isinstance(who, UserPrincipal) else who.subject


@pytest.mark.parametrize(
    "token",
    [FACTORY.user(), FACTORY.plugin(), FACTORY.on_behalf_of("bob"), FACTORY.legacy()],
    ids=numbered,
)
def test_a_token_with_any_character_changed_is_refused(barrier: Barrier, token: str) -> None:
    for place in range(0, len(token), 3):
        for other in "A-.":
            if token[place] != other:
                barrier.refusal(token[:place] + other + token[place + 1 :])
