"""Text as JavaScript reads it, where Backstage's loader leaves it to the language."""

from __future__ import annotations

import math
import re

# Python's own ``strip`` takes other characters: it knows U+0085 and not U+FEFF.
_SPACE = (
    "\t\n\v\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\ufeff"
)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RADIX = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")


def trim(text: str) -> str:
    """Return ``text`` as ``String.prototype.trim`` does."""
    return text.strip(_SPACE)


def trim_end(text: str) -> str:
    """Return ``text`` as ``String.prototype.trimEnd`` does."""
    return text.rstrip(_SPACE)


def number(text: str) -> float | None:
    """Return what ``Number(text)`` is, or None where that is not finite.

    Empty text is 0, and ``0x10``, ``0o20`` and ``0b10000`` are all 16.
    """
    text = trim(text)
    if not text:
        return 0.0
    if _RADIX.fullmatch(text):
        try:
            return float(int(text, 0))
        except OverflowError:
            return None
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
