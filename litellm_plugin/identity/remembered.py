"""Tokens that were verified a moment ago."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cachetools import LRUCache

from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.key_sets import NoKeysError
from litellm_plugin.identity.principal import Principal, UserPrincipal

MAX_TOKENS = 8192
MAX_SECONDS = 60.0  # after which a key that was withdrawn no longer helps


class RememberedTokens:
    """Verifies tokens, and users' tokens not again for a while. Safe to share between threads.

    Only what held is remembered, by the digest of the whole header, and never
    past the token's own end. Services are verified each time: their tokens
    need not end.

    Args:
        authenticator: Verifies.
        seconds: How long a token is believed without another look; a minute at most.
        clock: Tells the Unix time in seconds.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        seconds: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._seconds = min(seconds, MAX_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        # A value is the principal, and until when it is believed.
        self._believed: LRUCache[bytes, tuple[UserPrincipal, float, float]] = LRUCache(MAX_TOKENS)

    def prepare(self) -> None:
        """Fetch what users' tokens are verified with, if that can be had; else it is logged."""
        with suppress(NoKeysError):
            self._authenticator.load_user_keys()

    def authenticate(
        self, authorization: str | None, suspect: Callable[[], bool] = lambda: False
    ) -> Principal:
        """Return the principal behind an Authorization header, as ``Authenticator`` does.

        Args:
            authorization: The header's value; None where there is none.
            suspect: Tells whether too many tokens of the same origin did not hold; asked
                only of a token that is not remembered.
        """
        if authorization is None or not self._seconds:
            return self._authenticator.authenticate(authorization, suspect=suspect())
        header = authorization.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(header, digest_size=32).digest()
        now = self._clock()
        with self._lock:
            believed = self._believed.get(key)
        if believed is not None:
            principal, since, until = believed
            if since <= now < until:
                return principal
        found = self._authenticator.authenticate(authorization, suspect=suspect())
        if isinstance(found, UserPrincipal):
            until = min(now + self._seconds, found.expires_at)
            with self._lock:
                self._believed[key] = (found, now, until)
        return found
