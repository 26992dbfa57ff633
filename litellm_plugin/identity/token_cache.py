"""A cache of verified user tokens."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable

from cachetools import LRUCache

from litellm_plugin.identity.authenticator import Authenticator
from litellm_plugin.identity.principal import Principal, UserPrincipal

MAX_TOKENS = 8192
MAX_SECONDS = 60.0  # after which tokens signed with a withdrawn key are refused


class TokenCache:
    """Verifies tokens, and caches valid user tokens. Safe to share between threads.

    The key is the digest of the whole header. An entry expires after ``seconds``, at most a minute,
    or with its token. Tokens of services are verified each time, since they need not expire.

    Attributes:
        user_keys: The keys that Backstage signs user tokens with.
    """

    def __init__(
        self, authenticator: Authenticator, seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.user_keys = authenticator.user_keys
        self._authenticator = authenticator
        self._seconds = min(seconds, MAX_SECONDS)
        self._clock = clock
        self._lock = threading.Lock()
        # A value is the principal, the time of verification, and the time of expiry.
        self._verified: LRUCache[bytes, tuple[UserPrincipal, float, float]] = LRUCache(MAX_TOKENS)

    def authenticate(
        self, authorization: str | None, suspect: Callable[[], bool] = lambda: False
    ) -> Principal:
        """Return the principal of an Authorization header, as ``Authenticator`` does.

        ``suspect`` tells whether the client's address has sent too many bad tokens. It is called
        only where the token is not in the cache.
        """
        if authorization is None or not self._seconds:
            return self._authenticator.authenticate(authorization, suspect=suspect())
        header = authorization.encode("utf-8", "surrogatepass")
        key = hashlib.blake2b(header, digest_size=32).digest()
        now = self._clock()
        with self._lock:
            cached = self._verified.get(key)
        if cached is not None:
            principal, since, until = cached
            if since <= now < until:
                return principal
        found = self._authenticator.authenticate(authorization, suspect=suspect())
        if isinstance(found, UserPrincipal):
            until = min(now + self._seconds, found.expires_at)
            with self._lock:
                self._verified[key] = (found, now, until)
        return found
