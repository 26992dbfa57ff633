"""Checks the fields of request bodies, one function for each kind of value.

Fields that the caller may not set are refused by name, because requests go to LiteLLM with
the master key. The functions that are a :data:`Reader` raise BadRequest for a wrong value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from typing import Any

from litellm_plugin.errors import BadRequest

MAX_TEXT = 512  # characters of an alias, a name or an id
MAX_LIST = 1000
MAX_LIMIT = 2**63 - 1  # the largest number in LiteLLM's database

# Invisible characters that Unicode counts as letters, marks or symbols.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")

# Durations as LiteLLM's documentation has them; LiteLLM also takes "1dxyz" for a day and
# "1month" for a month. A month counts as 31 days, the longest.
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w|mo)")
_YEARS = re.compile(r"([0-9]{1,9})y")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "mo": 31 * 86_400}
MAX_DURATION = "36500d"  # LiteLLM answers 500 to a time beyond its calendar

# Returns the checked value of a field, given the field's name and the value.
Reader = Callable[[str, Any], Any]


def only(body: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse fields that are not ``allowed``.

    Raises:
        BadRequest: The body has other fields; the message names them.
    """
    unknown = sorted(set(body) - set(allowed))
    if unknown:
        names = ", ".join(f'"{name[:MAX_TEXT]}"' for name in unknown[:10])
        raise BadRequest(f"Unknown or forbidden field: {names}")


def text(name: str, value: Any) -> str:
    """A string of at most 512 characters, without control characters and lone surrogates."""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    if len(value) > MAX_TEXT or any(
        ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in value
    ):
        raise BadRequest(f"{name} must be a printable text of at most {MAX_TEXT} characters")
    return value


def name(field: str, value: Any) -> str:
    """A name that people can read: no control, zero-width or bidirectional characters."""
    if not isinstance(value, str):
        raise BadRequest(f"{field} must be a string")
    if not value.strip():
        raise BadRequest(f"{field} must not be blank")
    seen = any(unicodedata.category(char)[0] in "LNPS" for char in value)
    if len(value) > MAX_TEXT or not seen or not all(map(_is_printable, value)):
        raise BadRequest(
            f"{field} must be a printable text of at most {MAX_TEXT} characters,"
            " without control, zero-width and bidirectional characters"
        )
    return value


def _is_printable(char: str) -> bool:
    # Names may have other spaces than " ", which Python calls unprintable.
    return (char.isprintable() or unicodedata.category(char) == "Zs") and char not in _UNSEEN


def duration(name: str, value: Any) -> str:
    """A duration such as ``30d``; ``1y``, which LiteLLM does not know, becomes ``365d``."""
    years = _YEARS.fullmatch(value) if isinstance(value, str) else None
    taken = f"{int(years[1]) * 365}d" if years else value
    if seconds(taken) is None:
        raise BadRequest(f"{name} must be a number and one of s, m, h, d, w, mo and y, such as 30d")
    if not is_within(taken, MAX_DURATION):
        raise BadRequest(f"{name} must be at most {MAX_DURATION}")
    return str(taken)


def budget_duration(name: str, value: Any) -> str:
    """A duration after which a spend is reset; of months, LiteLLM only knows ``1mo``."""
    taken = duration(name, value)
    if not seconds(taken):
        raise BadRequest(f"{name} must be more than 0")
    if taken.endswith("mo") and int(taken.removesuffix("mo")) != 1:
        raise BadRequest(f"{name} must be 1mo, or a number and one of s, m, h, d, w and y")
    return taken


def seconds(duration: Any) -> int | None:
    """Return a duration in seconds, a month as 31 days; None for other values, such as "-1"."""
    match = _DURATION.fullmatch(duration) if isinstance(duration, str) else None
    return int(match[1]) * _SECONDS[match[2]] if match else None


def is_within(duration: Any, most: str) -> bool:
    """Tell whether a value is a duration, and at most as long as ``most``."""
    span, longest = seconds(duration), seconds(most)
    return span is not None and longest is not None and span <= longest


def shortest(duration: Any) -> int | None:
    """Return a duration in seconds, a month as 28 days; None as for :func:`seconds`."""
    longest = seconds(duration)
    if longest is None or not duration.endswith("mo"):
        return longest
    return int(duration.removesuffix("mo")) * 28 * _SECONDS["d"]


def texts(name: str, value: Any) -> list[str]:
    """A list of strings."""
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise BadRequest(f"{name} must be an array of strings")
    if not all(isinstance(item, str) for item in value):
        raise BadRequest(f"{name} must be an array of strings")
    return [text(name, item) for item in value]


def limit(name: str, value: Any) -> int | None:
    """A number per minute, 0 or more; null for no limit."""
    if value is None:
        return None
    if not is_number(value) or value < 0 or value != int(value):
        raise BadRequest(f"{name} must be a whole number, not negative")
    if value > MAX_LIMIT:
        raise BadRequest(f"{name} must be at most {MAX_LIMIT}")
    return int(value)


def or_null(reader: Reader) -> Reader:
    """Return a reader that also accepts null."""
    return lambda name, value: None if value is None else reader(name, value)


def is_number(value: Any) -> bool:
    """Tell whether ``value`` is a finite number, and no boolean."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False
