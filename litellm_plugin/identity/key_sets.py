"""Public keys of token issuers, fetched when needed and kept.

For an unknown key id the set is fetched again, as in Backstage, so that new keys are accepted at
once. Since clients can invent key ids, there are at most ``MAX_RELOADS`` such fetches in
``RELOAD_WINDOW`` seconds.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Lock
from typing import Any

from litellm_plugin.cache.single_flight import SingleFlight
from litellm_plugin.errors import PluginError
from litellm_plugin.identity.jwt import (
    ASYMMETRIC,
    KeyFormatError,
    PublicKey,
    TokenError,
    UnverifiedToken,
)

log = logging.getLogger(__name__)

MAX_AGE = 600.0  # seconds until known keys are fetched again
COOL_DOWN = 30.0  # seconds until the next attempt to fetch them, if one fails
MAX_RELOADS = 10
RELOAD_WINDOW = 60.0  # seconds

Fetch = Callable[[str], Any]
"""Takes a URL and returns the decoded JSON; raises ``PluginError``."""


class NoKeysError(TokenError):
    """The key set has never been read, so no token can be verified with it."""


class UnknownKey(TokenError):
    """The key that the token names is not in the key set."""


def select(keys: Sequence[PublicKey], token: UnverifiedToken) -> PublicKey:
    """Return the one key that ``token`` names.

    Raises:
        UnknownKey: None of the keys fits.
        TokenError: Several keys fit, or ``kid`` is not a string.
    """
    kid = token.header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise TokenError("its kid is not a string")
    fitting = [key for key in keys if kid in {None, key.kid} and key.fits(token.alg)]
    if not fitting:
        raise UnknownKey("it is signed with a key that its issuer does not publish")
    if len(fitting) > 1:
        raise TokenError("it does not say which of several keys it is signed with")
    return fitting[0]


class KeySet:
    """The keys at one URL. Safe to share between threads.

    One thread refreshes old keys while other threads use them; a thread that needs an unknown key
    waits for the fetch. Keys that can't be refreshed are kept.

    Args:
        url: URL of the JSON Web Key Set.
        fetch: Fetches it.
        setting: Name of the setting with the URL, for the log.
        timer: Returns a monotonic time in seconds.
    """

    def __init__(
        self,
        url: str,
        fetch: Fetch,
        *,
        setting: str,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._fetch = fetch
        self._setting = setting
        self._timer = timer
        self._lock = Lock()  # never held during a fetch
        self._keys: tuple[PublicKey, ...] | None = None
        self._due = 0.0  # when known keys are to be refreshed
        self._reloads: deque[float] = deque(maxlen=MAX_RELOADS)
        self._flights = SingleFlight()

    def key_for(self, token: UnverifiedToken) -> PublicKey:
        """Return the one key that ``token`` names, fetching the set where needed.

        Raises:
            NoKeysError: The set has never been read.
            TokenError: The algorithm is not an asymmetric one, or not exactly one key fits.
        """
        if token.alg not in ASYMMETRIC:
            raise TokenError("its algorithm is not allowed")
        fetched = self.load()
        try:
            return select(self._keys or (), token)
        except UnknownKey:
            if fetched or not self._fetch_once(reload=True):
                raise
        return select(self._keys or (), token)

    def prefetch(self, level: int) -> None:
        """Fetch the keys before the first token comes; a failure is logged at ``level``."""
        with suppress(PluginError, KeyFormatError):
            self._read(level)

    def load(self) -> bool:
        """Fetch the keys if they are missing or too old.

        Returns:
            Whether they were fetched, successfully or not.

        Raises:
            NoKeysError: The set has never been read, and can't be read now.
        """
        fetched = self._is_due() and self._fetch_once()
        if self._keys is None:
            raise NoKeysError("the keys to check it with can't be read")
        return fetched

    def _is_due(self) -> bool:
        with self._lock:
            if self._keys is None:
                return True
            now = self._timer()
            if now < self._due:
                return False
            # Other requests use the old keys during the fetch, and for a while if it fails.
            self._due = now + COOL_DOWN
            return True

    def _fetch_once(self, *, reload: bool = False) -> bool:
        """Fetch the set or share the fetch under way; return whether there was a fetch."""

        def fetch() -> bool:
            if reload and not self._may_reload():
                return False
            self._read()
            return True

        try:
            return self._flights.share("fetch", fetch)
        except (PluginError, KeyFormatError):
            return True  # _read logged it

    def _may_reload(self) -> bool:
        with self._lock:
            now = self._timer()
            if len(self._reloads) == MAX_RELOADS and now - self._reloads[0] < RELOAD_WINDOW:
                return False
            self._reloads.append(now)
            return True

    def _read(self, level: int = logging.WARNING) -> None:
        try:
            keys = _public_keys(self._fetch(self.url))
        except (PluginError, KeyFormatError) as exc:
            log.log(
                level,
                "The public keys at %s can't be read (%s). %s Check that %s leads there and "
                "that this host can reach it.",
                self.url.partition("?")[0],  # the query may be a secret
                exc,
                "Tokens signed there are refused." if self._keys is None else "Old ones are kept.",
                self._setting,
            )
            raise
        with self._lock:
            self._keys, self._due = keys, self._timer() + MAX_AGE


def _public_keys(document: Any) -> tuple[PublicKey, ...]:
    members = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(members, list) or not all(isinstance(key, Mapping) for key in members):
        raise KeyFormatError("it is not a JSON Web Key Set")
    keys = []
    for member in members:
        try:
            keys.append(PublicKey.from_jwk(member))
        except KeyFormatError as exc:
            # RFC 7517, section 5: keys that are not understood are to be ignored.
            log.debug("A key is passed over: %s", exc)
    return tuple(keys)
