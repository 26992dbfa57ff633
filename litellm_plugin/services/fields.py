"""Reads request bodies field by field: what is wrong is said, and nothing is guessed.

Only fields that a caller has the right to set go on to LiteLLM; anything else
is refused by name, because the request is sent with the master key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from litellm_plugin.errors import BadRequest

MAX_TEXT = 512  # characters of an alias, a name or an id
MAX_LIST = 1000
MAX_LIMIT = 2**63 - 1  # LiteLLM's database has no larger ones

Reader = Callable[[str, Any], Any]


def only(body: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse fields that are not ``allowed``.

    Raises:
        BadRequest: It names them.
    """
    unknown = sorted(set(body) - set(allowed))
    if unknown:
        names = ", ".join(f'"{name[:MAX_TEXT]}"' for name in unknown[:10])
        raise BadRequest(f"Unknown or forbidden field: {names}")


def read(body: Mapping[str, Any], readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Return the fields of ``body`` that ``readers`` know, checked; null is left to them."""
    return {name: readers[name](name, body[name]) for name in body if name in readers}


def text(name: str, value: Any) -> str:
    """A string, not too long, without control characters and half surrogates."""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    if len(value) > MAX_TEXT or any(
        ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in value
    ):
        raise BadRequest(f"{name} must be a printable text of at most {MAX_TEXT} characters")
    return value


def texts(name: str, value: Any) -> list[str]:
    """A list of strings."""
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise BadRequest(f"{name} must be an array of strings")
    if not all(isinstance(item, str) for item in value):
        raise BadRequest(f"{name} must be an array of strings")
    return [text(name, item) for item in value]


def limit(name: str, value: Any) -> int | None:
    """A number per minute that is not negative; null for none."""
    if value is None:
        return None
    if not is_number(value) or value < 0 or value != int(value):
        raise BadRequest(f"{name} must be a whole number, not negative")
    if value > MAX_LIMIT:
        raise BadRequest(f"{name} must be at most {MAX_LIMIT}")
    return int(value)


def metadata(name: str, value: Any) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object")
    return value


def or_null(reader: Reader) -> Reader:
    """Let null through."""
    return lambda name, value: None if value is None else reader(name, value)


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a finite number; a boolean is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float can hold
        return False
