"""``token``: the service's own decision, in an operator's words."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.cli.installation import Installation
from tests.fakes import connection_refused
from tests.tokens import STATIC_TOKEN, USER_TYP, SigningKey, TokenFactory

USER_KEYS = "http://127.0.0.1:7007/api/auth/.well-known/jwks.json"
RIG_KEYS = "http://127.0.0.1:7007/api/rig/.backstage/auth/v1/jwks.json"
PASSED_ON = {"backend": {"auth": {"externalAccess": [
    {"type": "static", "options": {"token": STATIC_TOKEN, "subject": "nightly"}},
    {
        "type": "static",
        "options": {"token": "catalog-only-token", "subject": "other"},
        "accessRestrictions": [{"plugin": "catalog"}],
    },
    {
        "type": "static",
        "options": {"token": "audit-only-token", "subject": "auditor"},
        "accessRestrictions": [{"plugin": "litellm", "permission": "litellm.audit.read"}],
    },
]}}}  # fmt: skip


@pytest.fixture
def plugin(installation: Installation) -> Installation:
    installation.config["backend"] |= PASSED_ON["backend"]
    return installation


def read(installation: Installation, token: str, *, held: bool) -> dict[str, Any]:
    result = installation.run("token", "--json", stdin=token)
    told: dict[str, Any] = json.loads(result.stdout)
    assert token not in result.output
    assert told["ok"] is held
    assert result.exit_code == (0 if held else 1)
    assert (told["refusal"] is None) is held
    return told


def test_a_users_token(plugin: Installation, tokens: TokenFactory) -> None:
    told = read(plugin, f"Bearer {tokens.user('bob')}\n", held=True)
    assert told["kind"] == "a Backstage user's token"
    assert told["who"] == "user:default/bob"
    assert told["keys"] == USER_KEYS
    assert told["until"] > time.time()
    assert told["claims"]["aud"] == "backstage"
    assert told["claims"]["uip"] == "(not shown)"


def test_other_kinds_that_hold(plugin: Installation, tokens: TokenFactory) -> None:
    told = read(plugin, tokens.plugin(), held=True)
    assert (told["who"], told["keys"]) == ("the service plugin:rig", RIG_KEYS)
    told = read(plugin, tokens.on_behalf_of("bob"), held=True)
    assert told["who"] == "user:default/bob, through plugin:rig"
    assert told["claims"]["obo"] == "(not shown)"
    told = read(plugin, STATIC_TOKEN, held=True)
    assert told["who"] == "the service nightly"
    told = read(plugin, "audit-only-token", held=True)
    assert told["who"] == "the service auditor, restricted to litellm.audit.read"
    # A client at the issuer may be called "backstage", too.
    for token in (tokens.keycloak(), tokens.keycloak(aud="backstage")):
        told = read(plugin, token, held=True)
        assert told["kind"] == "a Keycloak token, for /bridge/*"
        assert told["who"] == "bob, at /bridge/* only"


def test_why_it_is_refused(plugin: Installation, tokens: TokenFactory) -> None:
    now = int(time.time())
    stranger = SigningKey.ec("a-stranger")
    for token, refusal, remedy in (
        (tokens.expired(ago=200), "It expired 3 minutes ago.", "Get a new one"),
        (tokens.user(nbf=now + 7300), "It becomes valid in 2 hours.", "clocks"),
        (
            tokens.user(key=stranger),
            f"It is signed by a key that {USER_KEYS} does not publish.",
            "of another Backstage",
        ),
        (
            tokens.other_key(),
            f"Its signature is not that of the key that {USER_KEYS} publishes under its kid.",
            "of another Backstage",
        ),
        (
            tokens.plugin(aud="catalog"),
            "It is for the plugin catalog, and this service is litellm.",
            "token for litellm",
        ),
        (
            tokens.plugin(obo=tokens.limited(iat=now - 9000, exp=now - 7300)),
            "About the user's token inside (obo): It expired 2 hours ago.",
            "Get a new one",
        ),
        (tokens.alg_none(), "Its algorithm is not allowed.", ""),
        (tokens.limited(), "Illegal limited user token.", "the user's token itself"),
        (tokens.user(sub=""), "No user sub found in token.", "a new one from Backstage"),
        (
            tokens.keycloak(azp="other"),
            'Token not issued for client "abby-cli" (azp=other).',
            "litellm.bridge.clientId",
        ),
        (
            tokens.keycloak(iss="https://elsewhere.example"),
            "Illegal token.",
            "none of the 3 entries of backend.auth.externalAccess",
        ),
        (
            stranger.token({"typ": USER_TYP, "alg": "ES256"}, b"no json"),
            "The payload is not readable.",
            "",
        ),
        (
            "garbage-token",
            "As a JSON Web Token: the token does not have three segments.",
            "none of the 3",
        ),
        ("sk-0123456789abcdef", "Illegal token.", "LiteLLM itself takes such keys"),
        ("catalog-only-token", "restricted to plugin(s) 'catalog'", "accessRestriction"),
    ):
        told = read(plugin, token, held=False)
        assert refusal in told["refusal"]
        assert remedy in told["remedy"]


def test_keys_that_can_t_be_read_are_named(plugin: Installation, tokens: TokenFactory) -> None:
    plugin.backstage.replies["*"] = connection_refused()
    told = read(plugin, tokens.user(), held=False)
    assert told["refusal"] == f"The keys that verify it can't be read: {USER_KEYS}."
    assert "doctor" in told["remedy"]
    assert any("Check that discovery.endpoints" in note for note in told["notes"])
    told = read(plugin, tokens.plugin(), held=False)
    assert RIG_KEYS in told["refusal"]


def test_for_people(plugin: Installation, tokens: TokenFactory) -> None:
    page = plugin.run("token", stdin=tokens.user("bob")).stdout
    assert "Accepted as  user:default/bob\n" in page
    assert "minutes left)\n" in page
    # So long is said in whole minutes, however slow this machine is.
    page = plugin.run("token", stdin=tokens.expired(ago=200)).stdout
    assert "REFUSED      It expired 3 minutes ago.\n" in page


def test_a_token_is_not_taken_from_the_command_line(
    plugin: Installation, tokens: TokenFactory
) -> None:
    token = tokens.user()
    result = plugin.run("token", token)
    assert result.exit_code == 2
    assert "not taken from the command line" in result.stderr
    assert token not in result.output + result.stderr
    assert plugin.backstage.asked == []


def test_it_may_be_in_a_file(plugin: Installation, tokens: TokenFactory) -> None:
    file = plugin.folder / "header"
    file.write_text(f"Authorization: Bearer {tokens.user('bob')}\n")
    assert "user:default/bob" in plugin.run("token", "--file", str(file)).stdout
    assert plugin.run("token", "--file", str(plugin.folder / "none")).exit_code == 2


@pytest.mark.parametrize("text", ["", "Bearer", "two words"])
def test_something_else_is_told(plugin: Installation, text: str) -> None:
    assert plugin.run("token", stdin=text).exit_code == 2
