"""A new signing key is published by every replica before one of them signs with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from flask import Flask

from litellm_plugin import create_app
from litellm_plugin.config.settings import Service
from litellm_plugin.errors import Unauthenticated
from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.plugin_token import plugin_keys_url
from litellm_plugin.identity.principal import ServicePrincipal
from litellm_plugin.identity.signing import LIFETIME, PluginTokens
from tests.identity.barrier import OWN_KEYS, SETTINGS
from tests.identity.doubles import Clock, Web, pem_files
from tests.tokens import SigningKey

URL = plugin_keys_url(SETTINGS.discovery, "litellm")
Replica = Callable[[str], Flask]

# The keys of two replicas, one reloaded after the other: the first key signs.
STATES = (
    ("old", "old"),
    ("old new", "old"),
    ("old new", "old new"),
    ("new old", "old new"),
    ("new old", "new old"),
    ("new", "new old"),
    ("new", "new"),
)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Replica:
    folder, apps = tmp_path_factory.mktemp("keys"), dict[str, Flask]()
    made = {kid: pem_files(folder, SigningKey.ec(kid)) for kid in ("old", "new")}

    def replica(kids: str) -> Flask:
        if kids not in apps:
            keys = tuple(made[kid] for kid in kids.split())
            apps[kids] = create_app(replace(SETTINGS, plugin_keys=keys))
        return apps[kids]

    return replica


def published(app: Flask) -> Any:
    return app.test_client().get("/api/litellm/.backstage/auth/v1/jwks.json").json


def token(app: Flask, clock: Clock) -> str:
    keys = app.extensions["litellm_plugin"].plugin_keys
    return "Bearer " + PluginTokens(keys, "litellm", clock).issue("catalog")


def catalog(web: Web, clock: Clock) -> Authenticator:
    """Return a verifier that trusts the key set at the replicas' common address."""
    settings = replace(SETTINGS, service=Service(plugin_id="catalog"))
    return Authenticator(settings, web, OWN_KEYS, clock, Clock(0))


@pytest.mark.parametrize(("before", "after"), [*pairwise(STATES)])
def test_who_read_the_keys_of_a_step_verifies_all_tokens_of_the_next_without_another_read(
    replica: Replica, before: tuple[str, str], after: tuple[str, str]
) -> None:
    clock = Clock()
    for reads, signs in product({*before, *after}, {*before, *after}):
        web = Web({URL: published(replica(reads))})
        verifier = catalog(web, clock)
        for _ in range(2):
            who = verifier.authenticate(token(replica(signs), clock))
            assert who == ServicePrincipal("plugin:litellm")
        assert web.asked == [URL]


def test_a_key_that_signs_before_it_is_published_is_refused(replica: Replica) -> None:
    web, clock = Web({URL: published(replica("old"))}), Clock()
    with pytest.raises(Unauthenticated):
        catalog(web, clock).authenticate(token(replica("new old"), clock))


def test_a_removed_key_is_not_missed_once_its_last_token_has_expired(replica: Replica) -> None:
    clock = Clock()
    last = token(replica("old new"), clock)
    clock.advance(LIFETIME - 1)
    assert catalog(Web({URL: published(replica("new old"))}), clock).authenticate(last)
    clock.advance(1)
    with pytest.raises(Unauthenticated):
        catalog(Web({URL: published(replica("new old"))}), clock).authenticate(last)
