"""A JSON reader that refuses what other parsers may read in another way.

Parsers differ in how they read a name that is twice in one object, NaN, and a number beyond the
range of a float.
"""

from __future__ import annotations

import json
import math
from typing import Any


class AmbiguousJsonError(ValueError):
    """Parsers would differ; the message says about what, as in "has a name twice in one object"."""


def loads(text: str | bytes) -> Any:
    """Return the decoded JSON.

    Raises:
        AmbiguousJsonError: A name is twice in one object, or a number is out of range.
        ValueError: It is not JSON, or nested too deep.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
            parse_int=_int,
        )
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise AmbiguousJsonError("has a name twice in one object")
    return members


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise AmbiguousJsonError("has a number that is out of range")
    return number


def _int(text: str) -> int:
    _float(text)  # JavaScript has floats only, and Python's whole numbers have no end
    return int(text)
