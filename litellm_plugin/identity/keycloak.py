"""The bridge's tokens: who is asking from a command line, proven by Keycloak."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from litellm_plugin.config.settings import Bridge
from litellm_plugin.errors import PluginError
from litellm_plugin.identity.jose import (
    ASYMMETRIC,
    Claims,
    TokenError,
    UnverifiedToken,
    audiences,
    check_times,
    parse,
)
from litellm_plugin.identity.jwks import Fetch, KeySet, NoKeysError

log = logging.getLogger(__name__)

_SCHEME = "Bearer "

# An ID token names the same user, client and issuer, and is signed with the
# same key. What tells it apart is Keycloak's claim "typ"; other issuers have
# no such claim, and say it in the header (RFC 9068), if at all.
_ACCESS_TOKEN_CLAIM = "bearer"
_ACCESS_TOKEN_HEADERS = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}


class BridgeRefused(PluginError):
    """A bridge route was asked without a Keycloak token that holds."""

    status = 401
    kind = "bridge"  # for the metrics

    def __init__(self, hint: str) -> None:
        super().__init__("unauthorized", hint=hint)


class BridgeNotVerifiable(BridgeRefused):
    """Nobody knows whether the token holds."""


@dataclass(frozen=True, slots=True)
class BridgeIdentity:
    """Who a Keycloak access token is of; at least one of the first three is there.

    Attributes:
        subject: The user's id in Keycloak.
        email: The address.
        username: The name the user signs in with (``preferred_username``).
        name: The name to show.
    """

    subject: str | None
    email: str | None
    username: str | None
    name: str | None

    @property
    def login(self) -> str:
        """What the user's LiteLLM id is made of: user name, else e-mail, else subject."""
        return self.username or self.email or self.subject or ""


class BridgeVerifier:
    """Checks the tokens of ``/bridge/*``. Safe to share between threads.

    Args:
        bridge: Whose tokens, for which client; the issuer must be set.
        fetch: Fetches the issuer's key set.
        clock: Tells the Unix time in seconds.
        timer: Tells the time in seconds for the age of keys; must never go back.
    """

    def __init__(
        self,
        bridge: Bridge,
        fetch: Fetch,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if not bridge.issuer:
            raise ValueError("the bridge has no issuer")
        self._issuer = bridge.issuer.removesuffix("/")
        self._client_id = bridge.client_id
        self._clock = clock
        self._keys = KeySet(
            f"{self._issuer}/protocol/openid-connect/certs",
            fetch,
            setting="litellm.bridge.issuer",
            timer=timer,
        )

    def verify(self, authorization: str | None) -> BridgeIdentity:
        """Return who an Authorization header is of.

        Args:
            authorization: The header's value; None where there is none.

        Raises:
            BridgeRefused: It holds no access token of the issuer for this client.
        """
        # The clients know only this spelling, and the original no other.
        if not (authorization or "").startswith(_SCHEME):
            raise BridgeRefused("missing Bearer token")
        text = (authorization or "").removeprefix(_SCHEME).strip()
        if not text:
            raise BridgeRefused("missing Bearer token")
        try:
            claims = self._verified(parse(text))
            self._check_client(claims)
            return _identity(claims)
        except NoKeysError as exc:
            raise BridgeNotVerifiable("the issuer's keys can't be read at present") from exc
        except TokenError as exc:
            log.info("A bridge token is refused: %s", exc)
            raise BridgeRefused(f"invalid Keycloak token: {exc}") from exc

    def _verified(self, token: UnverifiedToken) -> Claims:
        claims = token.unverified_claims
        if claims.get("iss") != self._issuer:
            raise TokenError("it is of another issuer")
        check_times(claims, self._clock(), required=("exp",))
        header_typ, claim_typ = token.header.get("typ", "JWT"), claims.get("typ", "Bearer")
        if str(header_typ).lower() not in _ACCESS_TOKEN_HEADERS:
            raise TokenError("it is no access token")
        if str(claim_typ).lower() != _ACCESS_TOKEN_CLAIM:
            raise TokenError("it is no access token")
        return self._keys.key_for(token).verify(token, ASYMMETRIC)

    def _check_client(self, claims: Claims) -> None:
        party = claims.get("azp")
        if party == self._client_id or self._client_id in audiences(claims):
            return
        found = "none" if party is None else party
        raise BridgeRefused(f'token not issued for client "{self._client_id}" (azp={found})')


def _identity(claims: Claims) -> BridgeIdentity:
    name = claims.get("name")
    identity = BridgeIdentity(
        subject=_text(claims, "sub"),
        email=_text(claims, "email"),
        username=_text(claims, "preferred_username"),
        name=name if isinstance(name, str) and name else None,
    )
    if not identity.login:
        raise TokenError("it names nobody: no preferred_username, email or sub")
    # LiteLLM ids are made of what is behind an entity ref's slash and in front of an "@":
    # x/alice@example.org would be alice, and @example.org nobody.
    name = identity.login.partition("@")[0]
    if not name.strip() or "/" in name:
        raise TokenError("its user name can't be made into an id")
    return identity


def _text(claims: Claims, name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenError(f"{name!r} is no text")
    return value if value and value.strip() else None
