"""Backstage's tokens, signed with a throw-away key, and the stand-in's check of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from litellm_plugin.identity import jwt

USER = "vnd.backstage.user"
LIMITED_USER = "vnd.backstage.limited-user"
PLUGIN = "vnd.backstage.plugin"

_ACCEPTED = ("ES256", "RS256")


class Issuer:
    """Signs tokens like Backstage's auth plugin and its other plugins.

    Args:
        clock: Returns the Unix time, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._key = jwt.PrivateKey.generate()

    def jwks(self) -> dict[str, Any]:
        """Return the public key set."""
        return {"keys": [self._key.public().as_jwk()]}

    def user_token(
        self,
        entity_ref: str,
        *,
        issuer: str = "http://127.0.0.1:7010/api/auth",
        lifetime: float = 3600,
    ) -> str:
        """Return a user token.

        Args:
            entity_ref: Such as ``user:default/jane``.
            issuer: URL of Backstage's auth plugin.
            lifetime: Seconds until it expires; may be negative.
        """
        shared = {"sub": entity_ref, **self._times(lifetime)}
        proof = self._key.sign(LIMITED_USER, shared).rpartition(".")[2]
        claims = {"iss": issuer, **shared, "aud": "backstage", "uip": proof}
        return self._key.sign(USER, claims)

    def plugin_token(
        self, plugin: str, audience: str, *, user_token: str | None = None, lifetime: float = 3600
    ) -> str:
        """Return the token of a plugin for another plugin.

        Args:
            plugin: The calling plugin's id.
            audience: The called plugin's id.
            user_token: Token of the user whom the plugin acts for, if any.
            lifetime: Seconds until it expires; may be negative.
        """
        obo = {"obo": limited_token(user_token)} if user_token is not None else {}
        claims = {"sub": plugin, "aud": audience, **self._times(lifetime), **obo}
        return self._key.sign(PLUGIN, claims)

    def _times(self, lifetime: float) -> dict[str, int]:
        now = int(self._clock())
        return {"iat": now, "exp": now + int(lifetime)}


def limited_token(user_token: str) -> str:
    """Return the limited user token in a user token; needs no key."""
    token = jwt.parse(user_token)
    claims = token.unverified_claims
    header = {"typ": LIMITED_USER, "alg": token.alg, "kid": token.header.get("kid")}
    payload = {name: claims[name] for name in ("sub", "iat", "exp")}
    return f"{jwt.encode_segment(header)}.{jwt.encode_segment(payload)}.{claims['uip']}"


def proven(token: jwt.UnverifiedToken, jwks: Mapping[str, Any], *, now: float) -> jwt.Claims:
    """Return the claims of a token with a valid signature and valid times.

    Args:
        token: The parsed token.
        jwks: The issuer's key set.
        now: Unix time, in seconds.

    Raises:
        jwt.TokenError: The token is invalid.
    """
    for members in jwks.get("keys", ()):
        if members.get("kid") == token.header.get("kid"):
            try:
                claims = jwt.PublicKey.from_jwk(members).verify(token, _ACCEPTED)
            except jwt.KeyFormatError as exc:
                raise jwt.TokenError(f"its key can't be used: {exc}") from exc
            jwt.check_times(claims, now, required=("iat", "exp"))
            return claims
    raise jwt.TokenError("unknown key")
