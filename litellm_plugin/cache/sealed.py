"""Entries as bytes, for a store that others can write to."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from contextlib import suppress
from dataclasses import fields
from functools import lru_cache
from typing import Any

import orjson

from litellm_plugin.cache.store import Entry
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.clients.litellm import Account

log = logging.getLogger(__name__)

SEAL_BYTES = 32
MAX_BYTES = 1 << 20  # of one entry that others get

# Guessing a weak secret from what is in the store is to cost as much as this.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 1 << 14, 8, 1

_OBJECTS: dict[str, type[Account] | type[Entity]] = {"account": Account, "entity": Entity}
_PAIRS = "pairs"
_JSON = "json"

# By what to read it: orjson is five times as fast, but reads a large integer as a float.
_ORJSON, _STDLIB = b"o", b"j"

# The secret of a key (masked ones have dots in them) ...
_SECRET = re.compile(rb"sk-(?=[A-Za-z0-9_-]{8})")
# ... unless it is within a word, as in "risk-assessment"; what JSON escapes is no letter. The
# two are apart because a plain beginning is searched for forty times as fast.
_NOT_WITHIN = re.compile(rb"(?<![A-Za-z0-9])|(?<=\\[nrtbf])|(?<=\\u[0-9a-f]{4})")
# A field that may hold a secret.
_FIELD = re.compile(
    rb'"(?:api_key|credentials|env|env_vars|litellm_params|static_headers)":(?!null|""|\[\]|\{\})'
)


class TooLargeError(Exception):
    """An entry is not for others: all would wait for it to be written and read."""


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

    def close(self, name: str, entry: Entry) -> bytes:
        """Return ``entry`` as bytes, JSON behind a seal.

        Args:
            name: What it is kept under.
            entry: Its value is JSON, a list of tuples of JSON, an Account or an Entity.

        Raises:
            TooLargeError: Others would not get it.
            TypeError: It is something else.
            ValueError: It goes round in circles, or would not come back as it is.
            RecursionError: It is too deep.
        """
        kind, value = _plain(entry.value)
        text = _written([kind, value, list(entry.generations), entry.read_at])
        return self._seal(name, text) + text

    def let_out(self, name: str, entry: Entry) -> bytes | None:
        """Return ``entry`` as bytes if it may leave this process, sealed as it is.

        Returns:
            None where it is confidential, too large, or can't be put down in JSON.
        """
        try:
            data = self.close(name, entry)
        except TooLargeError:
            return None
        except (TypeError, ValueError, RecursionError) as exc:
            log.warning("a snapshot is kept in this process only: %s", exc)
            return None
        return None if _confidential(data) else data

    def open(self, name: str, data: bytes) -> Entry | None:
        """Return the entry that :meth:`close` made ``data`` of; None where it did not."""
        seal, text = data[:SEAL_BYTES], data[SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(name, text)):
            return None
        try:
            kind, value, generations, read_at = _read(text)
            return Entry(_restored(kind, value), tuple(generations), read_at)
        except (TypeError, ValueError, KeyError, RecursionError):
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


def _written(fact: list[Any]) -> bytes:
    """Return ``fact`` as JSON, and by what to read it.

    Raises:
        TooLargeError: It is longer than ``MAX_BYTES``.
        TypeError: It is no JSON.
        ValueError: Reading it again would make something else of it.
        RecursionError: It is too deep.
    """
    # Each has values that it changes and says nothing: orjson not-a-number, both a tuple.
    with suppress(orjson.JSONEncodeError, orjson.JSONDecodeError):
        text = orjson.dumps(fact)
        _refuse_too_large(text)
        if orjson.loads(text) == fact:
            return _ORJSON + text
    text = json.dumps(fact, separators=(",", ":")).encode()
    _refuse_too_large(text)
    if json.loads(text) != fact:
        raise ValueError("JSON would change it")
    return _STDLIB + text


def _refuse_too_large(text: bytes) -> None:
    # Before it is read again, which takes longest.
    if len(text) > MAX_BYTES - SEAL_BYTES - len(_ORJSON):
        raise TooLargeError


def _read(data: bytes) -> Any:
    by, text = data[:1], data[1:]
    if by == _ORJSON:
        return orjson.loads(text)
    if by == _STDLIB:
        return json.loads(text)
    raise ValueError("neither")


def _confidential(data: bytes) -> bool:
    secrets = (found.start() for found in _SECRET.finditer(data, SEAL_BYTES))
    return any(_NOT_WITHIN.match(data, at) for at in secrets) or bool(
        _FIELD.search(data, SEAL_BYTES)
    )


def _plain(value: Any) -> tuple[str, Any]:
    """Return what to write, and as what to read it.

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
