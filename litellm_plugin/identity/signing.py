"""The service's signing key, and the plugin tokens that it signs.

Backstage fetches the public keys from the plugin's URL. So all workers and replicas must sign with
a key that each of them publishes: a configured one (``backend.auth.pluginKeyStore``, whose first
key signs while all are published), or one in a file, which each host creates once.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from litellm_plugin.config.settings import Settings, StaticPluginKey
from litellm_plugin.config.state import state_folder
from litellm_plugin.errors import BackstageUnavailable
from litellm_plugin.identity.jwt import KeyFormatError, PrivateKey, PublicKey
from litellm_plugin.identity.principal import UserPrincipal

PLUGIN_TYP = "vnd.backstage.plugin"

LIFETIME = 3600  # seconds, as Backstage's own tokens
REUSED_FOR = 2700  # seconds; the remaining 900 are longer than any call

_Key = TypeVar("_Key", PublicKey, PrivateKey)

_STATIC_KEYS = "backend.auth.pluginKeyStore.static.keys"


class KeyStoreError(Exception):
    """The plugin key can't be read or stored; the message names the setting and the remedy."""


class PluginKeys:
    """The key that signs, and the keys that are published.

    Args:
        signing: The key that signs.
        published: The public keys, including that of ``signing``; by default only that.
    """

    def __init__(self, signing: PrivateKey, published: Sequence[PublicKey] = ()) -> None:
        self.signing = signing
        self.published = tuple(published) or (signing.public(),)

    @classmethod
    def load(cls, settings: Settings, environ: Mapping[str, str] = os.environ) -> PluginKeys:
        """Read the keys as :meth:`existing` does, and create this host's key if there is none.

        Raises:
            KeyStoreError: A key can't be read or stored, or other users could read it.
        """
        keys = cls.existing(settings, environ)
        if keys is not None:
            return keys
        path = key_file(settings, environ)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_folder(path.parent)
            _create(path)
            return cls(_read(path))
        except OSError as exc:
            raise _unusable(path, _reason(exc)) from exc

    @classmethod
    def existing(
        cls, settings: Settings, environ: Mapping[str, str] = os.environ
    ) -> PluginKeys | None:
        """Read ``pluginKeyStore``, else ``keyFile``; return None where there is no file yet.

        Args:
            settings: The service's settings.
            environ: ``XDG_STATE_HOME`` is used for the default file.

        Raises:
            KeyStoreError: A key can't be read, or other users could read it.
        """
        if settings.plugin_keys:
            return _configured(settings.plugin_keys)
        path = key_file(settings, environ)
        try:
            if not path.exists():
                return None
            _check_folder(path.parent)
            return cls(_read(path))
        except OSError as exc:
            raise _unusable(path, _reason(exc)) from exc

    def public_jwks(self) -> dict[str, Any]:
        """Return the JSON Web Key Set for ``/.backstage/auth/v1/jwks.json``."""
        return {"keys": [key.as_jwk() for key in self.published]}


class PluginTokens:
    """Issues plugin tokens. Safe to share between threads.

    Args:
        keys: The service's keys.
        plugin_id: The id of this plugin, the tokens' ``sub``.
        clock: Returns the Unix time in seconds.
    """

    def __init__(
        self, keys: PluginKeys, plugin_id: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._key = keys.signing
        self._plugin_id = plugin_id
        self._clock = clock
        self._lock = Lock()
        self._issued: dict[str, tuple[float, str]] = {}  # by audience: when issued, token

    def issue(self, audience: str, obo: str | None = None, not_after: float | None = None) -> str:
        """Return a token for another plugin.

        Args:
            audience: The id of the other plugin.
            obo: The limited token of the user on whose behalf the call is made.
            not_after: The latest ``exp``, in Unix seconds, if that is sooner than in an hour.

        Returns:
            A new token; without ``obo`` and ``not_after``, one that may have been issued before.
        """
        if obo is not None or not_after is not None:
            return self._signed(audience, obo, not_after)
        with self._lock:
            now = self._clock()
            issued, token = self._issued.get(audience, (0.0, ""))
            if not issued <= now < issued + REUSED_FOR:
                token = self._signed(audience, None, None)
                self._issued[audience] = (now, token)
            return token

    def on_behalf_of(self, user: UserPrincipal) -> str:
        """Return the token with which the permission API is asked about ``user``.

        Raises:
            BackstageUnavailable: The user's token is of no use to Backstage.
        """
        if user.token is not None:
            return user.token
        # A plugin acts for the user: Backstage accepts the limited token inside a plugin token.
        if user.limited_token is None:
            raise BackstageUnavailable(
                "Your sign-in can't be passed on to Backstage; reload the page"
            )
        return self.issue("permission", obo=user.limited_token, not_after=user.expires_at)

    def _signed(self, audience: str, obo: str | None, not_after: float | None) -> str:
        now = int(self._clock())
        expires = now + LIFETIME
        if not_after is not None:
            expires = min(expires, int(not_after))
        claims = {"sub": self._plugin_id, "aud": audience, "iat": now, "exp": expires}
        if obo is not None:
            claims["obo"] = obo
        return self._key.sign(PLUGIN_TYP, claims)


def _configured(keys: Sequence[StaticPluginKey]) -> PluginKeys:
    ids = [key.key_id for key in keys]
    if len(set(ids)) < len(ids):
        raise KeyStoreError(f"{_STATIC_KEYS}: every keyId must be another one, got {ids}")
    pairs = [_key_pair(key, index) for index, key in enumerate(keys)]
    signing = pairs[0][1]
    if signing is None:
        raise KeyStoreError(f"{_STATIC_KEYS}[0].privateKeyFile: missing; the first key signs")
    return PluginKeys(signing, [public for public, _ in pairs])


def _key_pair(key: StaticPluginKey, index: int) -> tuple[PublicKey, PrivateKey | None]:
    entry = f"{_STATIC_KEYS}[{index}]"
    public = _from_pem(PublicKey.from_pem, key.public_key_file, key, f"{entry}.publicKeyFile")
    if key.private_key_file is None:
        return public, None
    private = _from_pem(PrivateKey.from_pem, key.private_key_file, key, f"{entry}.privateKeyFile")
    # Checked even if the key does not sign yet, so that a fault shows when the key is added.
    if private.public().as_jwk() != public.as_jwk():
        raise KeyStoreError(
            f"{entry}: {key.private_key_file} and {key.public_key_file} are not a pair"
        )
    return public, private


def _from_pem(read: Callable[..., _Key], path: Path, key: StaticPluginKey, setting: str) -> _Key:
    try:
        return read(path.read_text("ascii"), kid=key.key_id, algorithm=key.algorithm)
    except (OSError, ValueError, KeyFormatError) as exc:
        raise KeyStoreError(f"{setting}: {path}: {_reason(exc)}") from exc


def key_file(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Return the path of this host's own key.

    Raises:
        KeyStoreError: No path is configured, and this user has no home folder.
    """
    if settings.service.key_file is not None:
        return settings.service.key_file
    folder = state_folder(environ)
    if folder is None:
        raise KeyStoreError(
            "litellm.service.keyFile: missing, and this user has no home folder to keep "
            "the plugin key in"
        )
    return folder / "plugin-key.json"


def _check_folder(folder: Path) -> None:
    status = folder.stat()
    open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if status.st_uid not in {0, os.geteuid()}:
        raise _unusable(folder, "the folder belongs to another user")
    # In a sticky folder, other users can't replace this user's files.
    if open_to_others and not status.st_mode & stat.S_ISVTX:
        raise _unusable(folder, "other users can write to the folder (chmod go-w)")


def _read(path: Path) -> PrivateKey:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid():
            raise _unusable(path, "the file belongs to another user")
        if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            raise _unusable(
                path, "other users may have read the key (delete the file: a new one is made)"
            )
        content = file.read()
    try:
        return PrivateKey.from_jwk(json.loads(content))
    except (ValueError, TypeError, RecursionError, KeyFormatError) as exc:
        raise _unusable(
            path, "the file holds no plugin key (delete it: a new one is made)"
        ) from exc


def _create(path: Path) -> None:
    """Write a new key to ``path``, unless another process has done so."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    complete = Path(name)  # mode 0600, as mkstemp makes it
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(PrivateKey.generate().as_jwk(), file)
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces a key that another process uses already.
        with suppress(FileExistsError):
            path.hardlink_to(complete)
    finally:
        complete.unlink()


def _unusable(path: Path, reason: str) -> KeyStoreError:
    return KeyStoreError(
        f"litellm.service.keyFile: the plugin key can't be kept in {path}: {reason}. Name a file "
        "in a folder that is this service's own, or configure backend.auth.pluginKeyStore."
    )


def _reason(exc: Exception) -> str:
    return exc.strerror or str(exc) if isinstance(exc, OSError) else str(exc)
