"""Entries as bytes, for a store that others can write to."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import fields
from typing import Any

from litellm_plugin.cache.store import Entry
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account

SEAL_BYTES = 32

# Guessing a weak secret from what is in the store is to cost as much as this.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1

_OBJECTS: dict[str, type[Account] | type[Entity]] = {"account": Account, "entity": Entity}
_PAIRS = "pairs"
_JSON = "json"


class Seal:
    """Turns entries into bytes and back; only bytes it made itself, for that name, count.

    An entry can say that somebody may do something, or whose a key is. Who can write to
    the store, but does not know the secret, can take such an entry away; they can't make
    one, or put one in the place of another.

    Args:
        secret: What the replicas know, and nobody else.
        installation: What else they have in common; entries of another one do not count.
    """

    def __init__(self, secret: str, installation: str) -> None:
        salt = hashlib.sha256(installation.encode("utf-8", "surrogatepass")).digest()
        self._key = hashlib.scrypt(
            secret.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=SEAL_BYTES
        )

    def close(self, name: str, entry: Entry) -> bytes:
        """Return ``entry`` as bytes, JSON behind a seal.

        Args:
            name: What it is kept under.
            entry: Its value is JSON, a list of tuples of JSON, an Account or an Entity.

        Raises:
            TypeError: It is something else.
            ValueError: It goes round in circles.
            RecursionError: It is too deep.
        """
        kind, value = _plain(entry.value)
        fact = [kind, value, entry.generations, entry.read_at]
        text = json.dumps(fact, separators=(",", ":")).encode()
        return self._seal(name, text) + text

    def open(self, name: str, data: bytes) -> Entry | None:
        """Return the entry that :meth:`close` made ``data`` of; None where it did not."""
        seal, text = data[:SEAL_BYTES], data[SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(name, text)):
            return None
        try:
            kind, value, generations, read_at = json.loads(text)
            return Entry(_restored(kind, value), tuple(generations), read_at)
        except (TypeError, ValueError, KeyError):
            return None  # of a version that keeps something else

    def _seal(self, name: str, text: bytes) -> bytes:
        sealed = hashlib.blake2b(key=self._key, digest_size=SEAL_BYTES)
        sealed.update(hashlib.sha256(name.encode()).digest())
        sealed.update(text)
        return sealed.digest()


def _plain(value: Any) -> tuple[str, Any]:
    """Return what to write, and as what to read it.

    Only the value itself can be an object: what is inside comes from LiteLLM, where
    everybody writes metadata of their own.
    """
    for kind, object_type in _OBJECTS.items():
        if isinstance(value, object_type):
            members = {field.name: getattr(value, field.name) for field in fields(value)}
            if isinstance(value, Entity):
                members["groups"] = sorted(value.groups)
            return kind, members
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return _PAIRS, value
    return _JSON, value


def _restored(kind: str, value: Any) -> Any:
    if kind == _JSON:
        return value
    if kind == _PAIRS:
        return [tuple(item) for item in value]
    if kind == "entity":
        value["groups"] = frozenset(value["groups"])
    return _OBJECTS[kind](**value)
