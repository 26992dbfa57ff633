from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin.config.settings import AccessRestriction, JwksAccess, LegacyAccess, StaticAccess
from litellm_plugin.errors import NotAllowed
from litellm_plugin.identity.principal import ServicePrincipal
from tests.identity.barrier import BAD_USER, BOB, FACTORY, ILLEGAL, REALM, Barrier, with_external
from tests.identity.doubles import NOW, numbered
from tests.tokens import LEGACY_SECRET, STATIC_TOKEN, SigningKey


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
        with pytest.raises(NotAllowed):
            with_external(StaticAccess("static-token", "s", ())).admits("static-token")

    def test_the_restrictions_inside_this_plugin_travel_along(self, barrier: Barrier) -> None:
        assert barrier.admits("rig-static-litellm-read-token") == ServicePrincipal(
            "rig-litellm-read", (AccessRestriction("litellm", actions=frozenset({"read"})),)
        )

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
        barrier = with_external(*(LegacyAccess(secret, secret.decode()[:7]) for secret in secrets))
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
