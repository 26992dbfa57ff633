"""Tokens with which Backstage plugins call each other, on their own or a user's behalf."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from threading import Lock

from cachetools import LRUCache

from litellm_plugin.config.settings import Discovery
from litellm_plugin.errors import Unauthenticated
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    Claims,
    PublicKey,
    TokenError,
    UnverifiedToken,
    audiences,
    check_times,
    parse,
)
from litellm_plugin.identity.key_sets import KeySet, NoKeysError, select
from litellm_plugin.identity.principal import Principal, ServicePrincipal
from litellm_plugin.identity.user_token import UserTokenVerifier, is_user_token

log = logging.getLogger(__name__)

MAX_KEY_SETS = 100  # of other plugins, kept in memory
MAX_FIRST_READS = 4  # of key sets, at the same time

_PLUGIN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")  # becomes part of a URL


class OtherAudience(TokenError):
    """The token is for another plugin."""


def plugin_keys_url(discovery: Discovery, plugin: str) -> str:
    """Return where ``plugin`` publishes the keys that it signs plugin tokens with."""
    return f"{discovery.base_url(plugin)}/.backstage/auth/v1/jwks.json"


class PluginTokenVerifier:
    """Verifies plugin tokens. Safe to share between threads.

    Clients can invent plugin ids. So a plugin's key set is kept only after it was read, and first
    reads use at most ``MAX_FIRST_READS`` connections to Backstage. Beyond ``MAX_KEY_SETS``, the
    least recently used key set is dropped.

    Args:
        plugin_id: The id of this plugin, which ``aud`` must name.
        own_keys: The keys of this plugin's own tokens.
        key_set: Returns a new key set of another plugin, by its id.
        users: Verifies the user token in the claim ``obo``.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self,
        plugin_id: str,
        own_keys: Sequence[PublicKey],
        key_set: Callable[[str], KeySet],
        users: UserTokenVerifier,
        clock: Callable[[], float],
    ) -> None:
        self._plugin_id = plugin_id
        self._own_keys = own_keys
        self._key_set = key_set
        self._users = users
        self._clock = clock
        self._lock = Lock()
        self._kept: LRUCache[str, KeySet] = LRUCache(MAX_KEY_SETS)
        self._first_reads: dict[str, KeySet] = {}

    def verify(self, token: UnverifiedToken, *, suspect: bool) -> Principal:
        """Return the plugin that signed ``token``, or the user that the plugin acts for.

        Args:
            token: A token whose ``typ`` is that of a plugin token.
            suspect: Whether to accept only plugins whose key set is already known.

        Raises:
            Unauthenticated: The token, or the user token inside, is not valid.
        """
        try:
            source = _unverified_source(token)
            claims = self._verified(token, source, suspect=suspect)
        except TokenError as exc:
            log.info("A plugin token is refused: %s", exc)
            raise Unauthenticated("Failed plugin token verification") from exc
        subject = f"plugin:{source}"
        obo = claims.get("obo")
        if obo is None or obo == "":
            return ServicePrincipal(subject)
        try:
            user = parse(obo) if isinstance(obo, str) else None
        except TokenError:
            user = None
        if user is None or not is_user_token(user):
            raise Unauthenticated("Invalid user token in plugin token obo claim")
        return self._users.verify(user, allow_limited=True, actor=subject)

    def _verified(self, token: UnverifiedToken, source: str, *, suspect: bool) -> Claims:
        own = source == self._plugin_id
        keys = None if own else self._keys_of(source, known_only=suspect)
        check_times(token.unverified_claims, self._clock(), required=("iat", "exp"))
        key = select(self._own_keys, token) if keys is None else keys.key_for(token)
        claims = key.verify(token, ASYMMETRIC)
        if self._plugin_id not in audiences(claims):
            raise OtherAudience("the token is for another plugin")
        return claims

    def _keys_of(self, plugin: str, *, known_only: bool) -> KeySet:
        with self._lock:
            kept = self._kept.get(plugin)
            if kept is not None:
                return kept
            if known_only:
                raise TokenError("the plugin's keys are not known, and the client is suspect")
            if plugin not in self._first_reads and len(self._first_reads) >= MAX_FIRST_READS:
                raise _no_jwks(plugin)
            key_set = self._first_reads.setdefault(plugin, self._key_set(plugin))
        try:
            key_set.load()
            with self._lock:
                self._kept[plugin] = key_set
        except NoKeysError as exc:
            raise _no_jwks(plugin) from exc
        finally:
            with self._lock:
                self._first_reads.pop(plugin, None)
        return key_set


def _unverified_source(token: UnverifiedToken) -> str:
    """Return the id of the plugin that the token names as its issuer."""
    claims = token.unverified_claims
    if "sub" not in claims:
        raise _no_jwks("undefined")  # as Backstage answers
    source = claims["sub"]
    if source == "":
        raise Unauthenticated("Invalid plugin token: missing subject")
    if not isinstance(source, str) or not _PLUGIN_ID.fullmatch(source):
        raise Unauthenticated("Invalid plugin token: forbidden subject format")
    return source


def _no_jwks(plugin: str) -> Unauthenticated:
    return Unauthenticated(
        f"Received a plugin token where the source '{plugin}' plugin unexpectedly does not have "
        "a JWKS endpoint. The target plugin needs to be migrated to be installed in an app using "
        "the new backend system."
    )
