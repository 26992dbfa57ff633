from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.config.settings import Service
from litellm_plugin.identity.plugin_token import MAX_KEY_SETS
from litellm_plugin.identity.principal import Principal, ServicePrincipal, UserPrincipal
from litellm_plugin.identity.signing import PluginTokens
from tests.identity.barrier import (
    BACKSTAGE,
    BAD_PLUGIN,
    BAD_USER,
    CLOCK,
    FACTORY,
    ILLEGAL,
    OWN_KEYS,
    RIG_KEYS,
    SETTINGS,
    Barrier,
    no_jwks,
)
from tests.identity.doubles import NOW, numbered
from tests.tokens import PLUGIN_TYP, STATIC_TOKEN, SigningKey


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
            FACTORY.plugin(aud=["catalog"]),
            FACTORY.plugin(aud="LITELLM"),
            FACTORY.plugin(exp=NOW),
            FACTORY.plugin(iat=None),
            FACTORY.plugin(exp=None),
            FACTORY.plugin(nbf=NOW + 1),
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
            all_in.wait(60)
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
