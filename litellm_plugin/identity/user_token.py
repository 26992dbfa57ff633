"""Tokens of Backstage users: user tokens, and the limited user tokens made from them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from litellm_plugin.config.settings import Discovery
from litellm_plugin.errors import NotVerifiable, Unauthenticated
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    Claims,
    TokenError,
    UnverifiedToken,
    check_times,
    encode_segment,
)
from litellm_plugin.identity.key_sets import KeySet, NoKeysError
from litellm_plugin.identity.principal import UserPrincipal

log = logging.getLogger(__name__)

USER_TYP = "vnd.backstage.user"
LIMITED_TYP = "vnd.backstage.limited-user"
USER_AUDIENCE = "backstage"


def user_keys_url(discovery: Discovery) -> str:
    """Return where Backstage publishes the keys that it signs user tokens with."""
    return f"{discovery.base_url('auth')}/.well-known/jwks.json"


def is_user_token(token: UnverifiedToken) -> bool:
    """Tell whether the token is to be verified as a user token.

    Old user tokens have another ``typ``, and the string ``backstage`` as ``aud``.
    """
    if token.typ in (USER_TYP, LIMITED_TYP):
        return True
    try:
        return token.unverified_claims.get("aud") == USER_AUDIENCE
    except TokenError:
        return False


class UserTokenVerifier:
    """Verifies user tokens. Safe to share between threads.

    Args:
        keys: The keys that Backstage signs user tokens with.
        clock: Returns the Unix time in seconds.
    """

    def __init__(self, keys: KeySet, clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock

    def verify(
        self, token: UnverifiedToken, *, allow_limited: bool, actor: str | None = None
    ) -> UserPrincipal:
        """Return the token's user.

        Args:
            token: A token for which :func:`is_user_token` holds.
            allow_limited: Whether a limited user token is accepted.
            actor: ``plugin:<id>`` of the plugin whose token carries this one as ``obo``.

        Raises:
            Unauthenticated: The token is not valid, or limited where that is not accepted.
            NotVerifiable: Backstage's keys have never been read.
        """
        try:
            claims, subject = self._verified(token)
        except TokenError as exc:
            exc.in_obo = actor is not None
            log.info("A user token is refused: %s", exc)
            refused = NotVerifiable if isinstance(exc, NoKeysError) else Unauthenticated
            raise refused("Failed user token verification") from exc
        if not subject:
            raise Unauthenticated("No user sub found in token")
        limited = token.typ == LIMITED_TYP
        if limited and not allow_limited:
            raise Unauthenticated("Illegal limited user token")
        if "exp" not in claims:
            raise Unauthenticated("User token is missing expiration")
        return UserPrincipal(
            entity_ref=subject,
            token=None if limited or actor else token.text,
            limited_token=limited_token(token, claims),
            expires_at=float(claims["exp"]),
            actor=actor,
        )

    def _verified(self, token: UnverifiedToken) -> tuple[Claims, str]:
        old = token.typ not in (USER_TYP, LIMITED_TYP)
        required = () if old else ("iat", "exp")
        check_times(token.unverified_claims, self._clock(), required=required)
        claims = self._keys.key_for(token).verify(token, ASYMMETRIC)
        if not old and "sub" not in claims:
            raise TokenError("'sub' is missing")
        subject = claims.get("sub") or ""
        if not isinstance(subject, str):
            raise TokenError("'sub' is not a string")
        return claims, subject


def limited_token(token: UnverifiedToken, claims: Claims) -> str | None:
    """Return the limited user token of a user token; None where that has no ``uip``.

    The claim ``uip`` is its signature. Header and payload must have exactly the members, order and
    spacing that Backstage signed. A limited token, or one without ``typ``, is returned as it is.
    """
    if token.typ == LIMITED_TYP or not token.typ:
        return token.text
    signature = claims.get("uip")
    if token.typ != USER_TYP or not isinstance(signature, str) or not signature:
        return None
    header = {"typ": LIMITED_TYP}
    header.update({name: token.header[name] for name in ("alg", "kid") if name in token.header})
    payload = {name: claims[name] for name in ("sub", "iat", "exp")}
    return f"{encode_segment(header)}.{encode_segment(payload)}.{signature}"
