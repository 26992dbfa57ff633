"""An authenticator with stand-ins around it, for the tests of each kind of token."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.config.settings import (
    AccessRestriction,
    Discovery,
    ExternalAccess,
    JwksAccess,
    LegacyAccess,
    Settings,
    StaticAccess,
)
from litellm_plugin.errors import Unauthenticated
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.jwt import PrivateKey
from litellm_plugin.identity.principal import Principal
from litellm_plugin.identity.signing import PluginKeys
from tests.identity.doubles import Clock, Web
from tests.tokens import LEGACY_SECRET, STATIC_TOKEN, TokenFactory

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
        (AccessRestriction("catalog"), AccessRestriction("litellm", actions=frozenset({"read"}))),
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


def with_external(*entries: ExternalAccess) -> Barrier:
    return Barrier(replace(SETTINGS, external_access=entries))
