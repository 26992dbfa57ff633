"""Entries as bytes, for a store that others can write to."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from dataclasses import fields
from functools import lru_cache
from typing import Any

from litellm_plugin.cache.tier import Entry
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account

log = logging.getLogger(__name__)

SEAL_BYTES = 32
MAX_BYTES = 1 << 20  # of one entry

# Guessing a weak secret from what is in the store is to cost as much as this.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1

_OBJECTS: dict[str, type[Account] | type[Entity]] = {"account": Account, "entity": Entity}
_PAIRS = "pairs"
_JSON = "json"

# The secret of a key (masked ones have dots in them) ...
_SECRET = re.compile(rb"sk-(?=[A-Za-z0-9_-]{8})")
# ... unless it is within a word, as in "risk-assessment"; what JSON escapes is no letter. The
# two are apart because a plain beginning is searched for forty times as fast.
_NOT_WITHIN = re.compile(rb"(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4})")
# A field that may hold a secret.
_FIELD = re.compile(
    rb'"(?:api_key|credentials|env|env_vars|litellm_params|static_headers)":(?!null|""|\[\]|\{\})'
)


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
        self._key = _key(secret, installation)

    def close(self, name: str, entry: Entry) -> bytes | None:
        """Return ``entry`` as bytes, JSON behind a seal; its stamps of this host are left out.

        Args:
            name: What it is kept under.
            entry: Its value is JSON, a list of tuples of JSON, an Account or an Entity.

        Returns:
            None where it may not leave this process: it is confidential, or too large, or would
            not come back as it is.
        """
        kind, value = _plain(entry.value)
        fact = [kind, value, entry.read_at, entry.seconds, entry.weight, entry.shared]
        try:
            text = json.dumps(fact, separators=(",", ":")).encode()
            # Before it is read again, which takes longest.
            if len(text) > MAX_BYTES - SEAL_BYTES or _confidential(text):
                return None
            if json.loads(text)[1] != value:  # not-a-number, a tuple, a key that is no text
                raise ValueError("JSON would change it")
        except (TypeError, ValueError, RecursionError) as exc:
            log.warning("an entry is kept in this process only: %s", exc)
            return None
        return self._seal(name, text) + text

    def open(self, name: str, data: bytes) -> Entry | None:
        """Return the entry that :meth:`close` made ``data`` of; None where it did not."""
        seal, text = data[:SEAL_BYTES], data[SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(name, text)):
            return None
        try:
            kind, value, read_at, seconds, weight, shared = json.loads(text)
            return Entry(_restored(kind, value), read_at, seconds, weight, (), tuple(shared))
        except (TypeError, ValueError, KeyError):
            return None  # of a version that keeps something else

    def _seal(self, name: str, text: bytes) -> bytes:
        sealed = hashlib.blake2b(key=self._key, digest_size=SEAL_BYTES)
        sealed.update(hashlib.sha256(name.encode()).digest())
        sealed.update(text)
        return sealed.digest()


@lru_cache(4)  # it takes a while, and a process may make several applications
def _key(secret: str, installation: str) -> bytes:
    salt = hashlib.sha256(installation.encode("utf-8", "surrogatepass")).digest()
    return hashlib.scrypt(
        secret.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=SEAL_BYTES
    )


def _confidential(text: bytes) -> bool:
    secrets = (found.start() for found in _SECRET.finditer(text))
    return any(_NOT_WITHIN.match(text, at) for at in secrets) or bool(_FIELD.search(text))


def _plain(value: Any) -> tuple[str, Any]:
    """Return as what to read ``value`` again, and what to write.

    Only the value itself can be an object: what is inside comes from LiteLLM, where
    everybody writes metadata of their own.
    """
    for kind, object_type in _OBJECTS.items():
        if isinstance(value, object_type):
            own = (field.name for field in fields(value) if field.init)
            members = {name: getattr(value, name) for name in own}
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
