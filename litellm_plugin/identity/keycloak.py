"""Access tokens of Keycloak, with which command-line clients sign in to the bridge."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from litellm_plugin.config.settings import Bridge
from litellm_plugin.errors import PluginError
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    Claims,
    TokenError,
    UnverifiedToken,
    audiences,
    check_times,
    parse,
)
from litellm_plugin.identity.key_sets import Fetch, KeySet, NoKeysError

log = logging.getLogger(__name__)

_SCHEME = "Bearer "  # the original accepts no other spelling

# ID tokens have the same user, client, issuer and key, and must be refused. Keycloak names the kind
# in the claim "typ", other issuers in the header (RFC 9068), or not at all.
_ACCESS_TOKEN_CLAIM = "bearer"
_ACCESS_TOKEN_HEADERS = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}


class BridgeRefused(PluginError):
    """A request to a bridge route has no valid Keycloak token."""

    status = 401
    kind = "bridge"  # for the metrics

    def __init__(self, hint: str) -> None:
        super().__init__("unauthorized", hint=hint)


class BridgeNotVerifiable(BridgeRefused):
    """The token can't be verified, because Keycloak's keys have never been read."""


@dataclass(frozen=True, slots=True)
class BridgeIdentity:
    """The user of an access token; has at least a ``subject``, ``email`` or ``username``."""

    subject: str | None  # the user's id in Keycloak
    email: str | None
    username: str | None  # for signing in (preferred_username)
    name: str | None  # for display

    @property
    def login(self) -> str:
        """The source of the user's LiteLLM id: user name, else e-mail, else subject."""
        return self.username or self.email or self.subject or ""


def realm_keys_url(issuer: str) -> str:
    """Return where a Keycloak realm publishes its keys; ``issuer`` is the realm's URL."""
    return f"{issuer.removesuffix('/')}/protocol/openid-connect/certs"


class BridgeVerifier:
    """Verifies the tokens of ``/bridge/*``. Safe to share between threads.

    Args:
        bridge: The issuer, which must be set, and the client.
        fetch: Fetches the issuer's key set.
        clock: Returns the Unix time in seconds.
        timer: Returns a monotonic time in seconds, for the age of keys.
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
            realm_keys_url(bridge.issuer), fetch, setting="litellm.bridge.issuer", timer=timer
        )

    def verify(self, authorization: str | None) -> BridgeIdentity:
        """Return the user of an Authorization header.

        Raises:
            BridgeRefused: The header has no valid access token of the issuer for this client.
        """
        header = authorization or ""
        text = header.removeprefix(_SCHEME).strip()
        if not header.startswith(_SCHEME) or not text:
            raise BridgeRefused("missing Bearer token")
        try:
            return _identity(self._verified(parse(text)))
        except NoKeysError as exc:
            raise BridgeNotVerifiable("the issuer's keys can't be read at present") from exc
        except TokenError as exc:
            log.info("A bridge token is refused: %s", exc)
            raise BridgeRefused(f"invalid Keycloak token: {exc}") from exc

    def _verified(self, token: UnverifiedToken) -> Claims:
        claims = token.unverified_claims
        if claims.get("iss") != self._issuer:
            raise TokenError("the token has another issuer")
        check_times(claims, self._clock(), required=("exp",))
        header_typ, claim_typ = token.header.get("typ", "JWT"), claims.get("typ", "Bearer")
        if (
            str(header_typ).lower() not in _ACCESS_TOKEN_HEADERS
            or str(claim_typ).lower() != _ACCESS_TOKEN_CLAIM
        ):
            raise TokenError("the token is not an access token")
        claims = self._keys.key_for(token).verify(token, ASYMMETRIC)
        party = claims.get("azp")
        if party != self._client_id and self._client_id not in audiences(claims):
            found = "none" if party is None else party
            raise BridgeRefused(f'token not issued for client "{self._client_id}" (azp={found})')
        return claims


def _identity(claims: Claims) -> BridgeIdentity:
    name = claims.get("name")  # ignored if it is not a string
    identity = BridgeIdentity(
        subject=_string(claims, "sub"),
        email=_string(claims, "email"),
        username=_string(claims, "preferred_username"),
        name=name if isinstance(name, str) and name else None,
    )
    if not identity.login:
        raise TokenError("preferred_username, email and sub are missing")
    # The LiteLLM id is the part behind a slash and before an "@". Without this check,
    # x/alice@example.org would become alice, and @example.org the empty id.
    local_part = identity.login.partition("@")[0]
    if not local_part.strip() or "/" in local_part:
        raise TokenError("the user name can't be made into an id")
    return identity


def _string(claims: Claims, name: str) -> str | None:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise TokenError(f"{name!r} is not a string")
    return value if value and value.strip() else None
