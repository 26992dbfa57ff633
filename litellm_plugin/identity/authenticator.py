"""Backstage's order of the kinds of tokens.

The first kind that recognises a credential decides about it. A token that it refuses is not
tried as another kind.

1. Plugin tokens, by ``typ``.
2. User tokens and limited user tokens, by ``typ``; old user tokens, by ``aud``.
3. ``backend.auth.externalAccess``, entry by entry.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from litellm_plugin.config.settings import Settings
from litellm_plugin.errors import BackstageUnavailable, Unauthenticated
from litellm_plugin.identity.external_token import ExternalTokenVerifier
from litellm_plugin.identity.jwt import TokenError, parse
from litellm_plugin.identity.key_sets import Fetch, KeySet, NoKeysError
from litellm_plugin.identity.plugin_token import PluginTokenVerifier, plugin_keys_url
from litellm_plugin.identity.principal import Principal
from litellm_plugin.identity.signing import PLUGIN_TYP, PluginKeys
from litellm_plugin.identity.user_token import UserTokenVerifier, is_user_token, user_keys_url

_BEARER = re.compile(r"Bearer +(\S+)", re.IGNORECASE)
_DISCOVERY = "discovery.endpoints, litellm.service.backstageUrl or backend.baseUrl"


class Authenticator:
    """Finds the principal of an Authorization header. Safe to share between threads.

    Args:
        settings: Discovery, external access and the plugin's own id are used.
        fetch: Fetches key sets.
        own_keys: The service's own keys.
        clock: Returns the Unix time in seconds.
        timer: Returns a monotonic time in seconds, for the age of keys.

    Attributes:
        user_keys: The keys that Backstage signs user tokens with.
    """

    def __init__(
        self,
        settings: Settings,
        fetch: Fetch,
        own_keys: PluginKeys,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        def key_set(url: str, setting: str = _DISCOVERY) -> KeySet:
            return KeySet(url, fetch, setting=setting, timer=timer)

        discovery, plugin_id = settings.discovery, settings.service.plugin_id
        self.user_keys = key_set(user_keys_url(discovery))
        self._users = UserTokenVerifier(self.user_keys, clock)
        self._plugins = PluginTokenVerifier(
            plugin_id,
            own_keys.published,
            lambda plugin: key_set(plugin_keys_url(discovery, plugin)),
            self._users,
            clock,
        )
        self._external = ExternalTokenVerifier(settings.external_access, plugin_id, key_set, clock)

    def reaches_backstage(self, fetch: Fetch) -> bool:
        """Tell whether the keys of user tokens have been read, and can be fetched now."""
        try:
            self.user_keys.load()
            return bool(fetch(self.user_keys.url))
        except (NoKeysError, BackstageUnavailable):
            return False

    def authenticate(
        self, authorization: str | None, *, allow_limited: bool = False, suspect: bool = False
    ) -> Principal:
        """Return the principal of an Authorization header.

        Args:
            authorization: The header's value; None where there is none.
            allow_limited: Whether a limited user token is accepted.
            suspect: Whether the client's address has sent too many bad tokens. Then tokens
                that could be guessed are refused, and no new key set is fetched.

        Raises:
            Unauthenticated: The header has no bearer token, or the token is not valid.
            NotAllowed: The token is restricted to other plugins.
        """
        bearer = _BEARER.fullmatch((authorization or "").strip(" \t"))
        if bearer is None:
            raise Unauthenticated("Missing credentials")
        try:
            token = parse(bearer[1])
        except TokenError:
            token = None
        if token is not None and token.typ == PLUGIN_TYP:
            with _refused_as("plugin"):
                return self._plugins.verify(token, suspect=suspect)
        if token is not None and is_user_token(token):
            with _refused_as("user"):
                return self._users.verify(token, allow_limited=allow_limited)
        with _refused_as("external"):
            return self._external.verify(bearer[1], token, suspect=suspect)


@contextmanager
def _refused_as(kind: str) -> Iterator[None]:
    """Set the kind of credentials on a refusal, for the metrics."""
    try:
        yield
    except Unauthenticated as exc:
        exc.kind = kind
        raise
