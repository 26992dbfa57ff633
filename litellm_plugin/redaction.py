"""Makes texts safe to log, show or send: without secrets, and each on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

# Possessive, so that each character is read once: a plain eyJ\w+ would take seconds for
# "eyJeyJeyJ..." of the length of a request's body.
_JWT = re.compile(
    r"(?<![A-Za-z0-9_\-])((?>[A-Za-z0-9_\-]*?(?=eyJ)))"
    r"eyJ[A-Za-z0-9_\-]*+\.[A-Za-z0-9_\-]++\.[A-Za-z0-9_\-]*+"
)
_HASH_DIGITS = 64
_DIGITS = re.compile(r"[0-9A-Fa-f]{64}")  # a fast check before _KEY_HASH
# The D of a preceding %3D is no digit of the hash.
_KEY_HASH = re.compile(
    r"(?:(?<![0-9A-Fa-f])|(?<=%[0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4}))"
    r"[0-9A-Fa-f]{64}(?![0-9A-Fa-f])"
)
# A text that each match contains, the pattern, the replacement. The search for the text is fast,
# and most inputs do not contain it.
_SECRETS = (
    ("Bearer", re.compile(r"Bearer\s+[A-Za-z0-9._\-+/=]+"), "Bearer [redacted]"),
    ("sk-", re.compile(r"sk-[A-Za-z0-9_\-]{8,}"), "sk-[redacted]"),
    # LiteLLM quotes the ends of a master key that it refuses.
    (
        "Received",
        re.compile(r"(\bReceived(?: API Key)? ?= ?)[^\s,\"'\\]+"),
        r"\1[redacted]",
    ),
    ("eyJ", _JWT, r"\1[redacted]"),
    ("://", re.compile(r"(://[^/\s:@]*+:)[^/\s@]++@"), r"\1[redacted]@"),
)


_MIN_SECRET = 6  # characters; a shorter secret would match parts of words
_configured: tuple[str, ...] = ()  # the longest first


def register_secrets(secrets: Iterable[str]) -> None:
    """Make :func:`redact` redact these secrets, too, in this process.

    Args:
        secrets: The configuration's; those of less than 6 characters are ignored.
    """
    global _configured  # noqa: PLW0603 - logs are one for the process, too
    known = {secret for secret in secrets if len(secret) >= _MIN_SECRET}
    known |= {quote(secret, safe="") for secret in known}
    _configured = tuple(sorted(known.union(_configured), key=lambda each: (-len(each), each)))


def redact(text: str, *, hashes: bool = True) -> str:
    """Return ``text`` without secrets.

    These are configured secrets, bearer tokens, ``sk-`` keys, JWTs, passwords in URLs, and key
    hashes.

    Args:
        text: Any text.
        hashes: Whether to redact key hashes; not in a response to the client that sent them.
    """
    for secret in _configured:
        text = text.replace(secret, "[redacted]")
    for part, pattern, replacement in _SECRETS:
        if part in text:
            text = pattern.sub(replacement, text)
    if hashes and len(text) >= _HASH_DIGITS and _DIGITS.search(text):
        text = _KEY_HASH.sub("[redacted]", text)
    return text


def printable(text: str) -> str:
    """Escape unprintable characters as JSON does, so that a line of JSON remains JSON."""
    if text.isprintable():
        return text
    # JSON escapes every unprintable character except DEL.
    return "".join(
        char if char.isprintable() else json.dumps(char)[1:-1].replace("\x7f", "\\u007f")
        for char in text
    )


def safe_line(text: str) -> str:
    """Return ``text`` without secrets, as one line."""
    return printable(redact(text))
