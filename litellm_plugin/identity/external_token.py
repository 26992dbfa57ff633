"""``backend.auth.externalAccess``: tokens of services outside Backstage."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Sequence
from functools import partial

from litellm_plugin.config.settings import ExternalAccess, JwksAccess, LegacyAccess, StaticAccess
from litellm_plugin.errors import NotAllowed, Unauthenticated
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    SharedSecret,
    TokenError,
    UnverifiedToken,
    audiences,
    check_times,
)
from litellm_plugin.identity.key_sets import KeySet
from litellm_plugin.identity.principal import ServicePrincipal

log = logging.getLogger(__name__)


class ExternalTokenVerifier:
    """Verifies tokens against the configured entries, in their order.

    Safe to share between threads.

    Args:
        entries: The entries.
        plugin_id: The id of this plugin, which an entry's restrictions must name.
        key_set: Returns the key set at a URL, given the URL and the name of its setting.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self,
        entries: Sequence[ExternalAccess],
        plugin_id: str,
        key_set: Callable[[str, str], KeySet],
        clock: Callable[[], float],
    ) -> None:
        self._plugin_id = plugin_id
        self._checks = [(entry, _check_of(entry, key_set, clock)) for entry in entries]

    def verify(
        self, credential: str, token: UnverifiedToken | None, *, suspect: bool
    ) -> ServicePrincipal:
        """Return the service that the first matching entry names.

        Args:
            credential: The text after ``Bearer``.
            token: The credential as a JSON Web Token; None where it is not one.
            suspect: Whether to skip the entries whose tokens could be guessed.

        Raises:
            Unauthenticated: No entry matches.
            NotAllowed: The entry is restricted to other plugins.
        """
        for entry, subject_of in self._checks:
            if suspect and not isinstance(entry, JwksAccess):
                continue
            subject = subject_of(credential, token)
            if subject is None:
                continue
            if entry.restrictions is None:
                return ServicePrincipal(subject)
            ours = tuple(each for each in entry.restrictions if each.plugin == self._plugin_id)
            if not ours:
                plugins = ", ".join(f"'{each.plugin}'" for each in entry.restrictions)
                raise NotAllowed(f"This token's access is restricted to plugin(s) {plugins}")
            return ServicePrincipal(subject, ours)
        raise Unauthenticated("Illegal token")


_Check = Callable[[str, UnverifiedToken | None], str | None]
"""Takes the credential and, if it is one, the parsed token; returns the subject if they match."""


def _check_of(
    entry: ExternalAccess, key_set: Callable[[str, str], KeySet], clock: Callable[[], float]
) -> _Check:
    match entry:
        case StaticAccess():
            return partial(_static_subject, entry, _digest(entry.token))
        case LegacyAccess():
            secret = SharedSecret.from_bytes(entry.secret)
            return _check_of_token(partial(_legacy_subject, entry, secret, clock))
        case JwksAccess():
            keys = key_set(entry.url, "the url of backend.auth.externalAccess")
            return _check_of_token(partial(_jwks_subject, entry, keys, clock))


def _check_of_token(subject_of: Callable[[UnverifiedToken], str | None]) -> _Check:
    """Return a check that only a JSON Web Token can match."""
    return lambda _credential, token: None if token is None else subject_of(token)


def _static_subject(
    entry: StaticAccess, digest: bytes, credential: str, _token: UnverifiedToken | None
) -> str | None:
    # Digests have one length, so the comparison's time does not reveal the token's length.
    return entry.subject if hmac.compare_digest(_digest(credential), digest) else None


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()


def _legacy_subject(
    entry: LegacyAccess, secret: SharedSecret, clock: Callable[[], float], token: UnverifiedToken
) -> str | None:
    try:
        claims = secret.verify(token)
    except TokenError:
        return None
    if claims.get("sub") != "backstage-server" or claims.get("aud"):
        return None
    try:
        check_times(claims, clock())
    except TokenError as exc:
        log.info("A legacy token of %r is refused: %s", entry.subject, exc)
        raise Unauthenticated("Failed external token verification") from exc
    return entry.subject


def _jwks_subject(
    entry: JwksAccess, keys: KeySet, clock: Callable[[], float], token: UnverifiedToken
) -> str | None:
    try:
        claims = token.unverified_claims
        if entry.issuers and claims.get("iss") not in entry.issuers:
            raise TokenError("the token has another issuer")
        if entry.audiences and audiences(claims).isdisjoint(entry.audiences):
            raise TokenError("the token is for another audience")
        check_times(claims, clock())
        claims = keys.key_for(token).verify(token, entry.algorithms or ASYMMETRIC)
    except TokenError as exc:
        # The query of the URL may hold a secret.
        log.info(
            "A token does not match the entry with the keys of %s: %s",
            entry.url.partition("?")[0],
            exc,
        )
        return None
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject:
        return None
    return ":".join(filter(None, ("external", entry.subject_prefix, subject)))
