"""Cache entries as authenticated bytes, for a store to which others can write."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from dataclasses import fields
from functools import lru_cache
from typing import Any

from litellm_plugin.cache.stamps import Entry
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account

log = logging.getLogger(__name__)

SEAL_BYTES = 32
MAX_BYTES = 1 << 20  # of one entry

# High enough that a weak secret can't be guessed fast from an entry in the store.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1

_OBJECTS: dict[str, type[Account] | type[Entity]] = {"account": Account, "entity": Entity}
_PAIRS = "pairs"
_JSON = "json"

# How the secret of a key begins; masked secrets have dots in them.
_SECRET = re.compile(rb"sk-(?=[A-Za-z0-9_-]{8})")
# Where that is not within a word, as in "risk-assessment"; an escape of JSON is not part of a word.
# Two patterns, because one that begins with plain text is searched for forty times as fast.
_NOT_WITHIN = re.compile(rb"(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4})")
# A field that may hold a secret.
_FIELD = re.compile(
    rb'"(?:api_key|credentials|env|env_vars|litellm_params|static_headers)":(?!null|""|\[\]|\{\})'
)


class Seal:
    """Turns entries into bytes and back, with a keyed hash of the bytes and the entry's name.

    An entry may hold a permission, or the owner of a key. Others who can write to the store can
    delete entries; without the secret they can't forge one, or put one in the place of another.

    Args:
        secret: A secret that all replicas have.
        installation: Settings that all replicas have; entries of other installations are
            not valid.
    """

    def __init__(self, secret: str, installation: str) -> None:
        self._key = _key(secret, installation)

    def close(self, name: str, entry: Entry) -> bytes | None:
        """Return ``entry`` as bytes: the hash, then JSON, without the stamps of this host.

        Args:
            name: The name it is stored under.
            entry: Its value is JSON, a list of tuples of JSON, an Account or an Entity.

        Returns:
            None where the entry may not leave this process: it is confidential, too large, or
            JSON would change it.
        """
        kind, value = _plain(entry.value)
        fact = [kind, value, entry.read_at, entry.seconds, entry.weight, entry.shared]
        try:
            text = json.dumps(fact, separators=(",", ":")).encode()
            # Checked before the parsing below, which takes longest.
            if len(text) > MAX_BYTES - SEAL_BYTES or _confidential(text):
                return None
            if json.loads(text)[1] != value:  # NaN, a tuple, a key that is not a string
                raise ValueError("JSON would change it")
        except (TypeError, ValueError, RecursionError) as exc:
            log.warning("A cache entry is kept in this process only: %s", exc)
            return None
        return self._seal(name, text) + text

    def open(self, name: str, data: bytes) -> Entry | None:
        """Return the entry in bytes that :meth:`close` returned; None for other bytes."""
        seal, text = data[:SEAL_BYTES], data[SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(name, text)):
            return None
        try:
            kind, value, read_at, seconds, weight, shared = json.loads(text)
            return Entry(_restored(kind, value), read_at, seconds, weight, (), tuple(shared))
        except (TypeError, ValueError, KeyError):
            return None  # written by a version with another format

    def _seal(self, name: str, text: bytes) -> bytes:
        sealed = hashlib.blake2b(key=self._key, digest_size=SEAL_BYTES)
        sealed.update(hashlib.sha256(name.encode()).digest())
        sealed.update(text)
        return sealed.digest()


@lru_cache(4)  # scrypt is slow, and a process may make several applications
def _key(secret: str, installation: str) -> bytes:
    salt = hashlib.sha256(installation.encode("utf-8", "surrogatepass")).digest()
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=SEAL_BYTES
    )


def _confidential(text: bytes) -> bool:
    secrets = (found.start() for found in _SECRET.finditer(text))
    return any(_NOT_WITHIN.match(text, at) for at in secrets) or bool(_FIELD.search(text))


def _plain(value: Any) -> tuple[str, Any]:
    """Return the kind of ``value``, for :func:`_restored`, and the JSON to write.

    Only the value itself may be an Account or Entity, never what is in it: that comes from
    LiteLLM, where users choose metadata.
    """
    for kind, object_type in _OBJECTS.items():
        if isinstance(value, object_type):
            members = {field.name: getattr(value, field.name) for field in fields(value)}
            if isinstance(value, Entity):
                members["groups"] = sorted(value.groups)
            return kind, members
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        return _PAIRS, [list(item) for item in value]
    return _JSON, value


def _restored(kind: str, value: Any) -> Any:
    if kind == _JSON:
        return value
    if kind == _PAIRS:
        return [tuple(item) for item in value]
    if kind == "entity":
        value["groups"] = frozenset(value["groups"])
    return _OBJECTS[kind](**value)
