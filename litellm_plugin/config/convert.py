"""One value of the configuration into one Python value, or why not.

Conversions are those of Backstage's getters: text that is a number or a boolean counts
as one, and the empty string is no string.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from litellm_plugin.config import javascript
from litellm_plugin.config.settings import Rate
from litellm_plugin.config.yaml12 import Value

_TRUE = frozenset({"y", "yes", "true", "1", "on"})
_FALSE = frozenset({"n", "no", "false", "0", "off"})
_NOT_IN_URLS = re.compile(r"[\s\x00-\x1f\x7f\\]")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(r"([1-9][0-9]{0,8}) ?(?:/|per) ?(second|minute|hour|day)")
_PLUGIN_ID = re.compile(r"\{\{\s*pluginId\s*\}\}")


class Wrong(Exception):
    """A value is not what was wanted.

    Attributes:
        wanted: What was, in words.
        got: What it is, in words that do not quote it; None where its type says enough.
    """

    def __init__(self, wanted: str, *, got: str | None = None) -> None:
        super().__init__(wanted, got)
        self.wanted = wanted
        self.got = got


def kind(value: Value) -> str:
    """Return what messages call a value like ``value``."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case "":
            return "empty string"
        case str():
            return "string"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return "number" if math.isfinite(value) else "infinity or NaN"


def blank_or_text(value: Value) -> str:
    """Return the string that ``value`` is, the empty one too."""
    if isinstance(value, str):
        return value
    raise Wrong("string")


def text(value: Value) -> str:
    """Return the string that ``value`` is; the empty one is none."""
    if isinstance(value, str) and value:
        return value
    raise Wrong("string")


def flag(value: Value) -> bool:
    """Return the boolean that ``value`` is; 1, ``yes`` and ``Off`` are some too."""
    word = ""
    if isinstance(value, str):
        word = javascript.trim(value).lower()
    elif isinstance(value, (bool, int, float)) and value in {0, 1}:
        word = str(int(value))
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise Wrong("boolean")


def number(value: Value) -> float:
    """Return the number that ``value`` is or says in text: finite, and not negative."""
    found: float | None = None
    if isinstance(value, str):
        found = javascript.number(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:
            raise Wrong("number", got="infinity or NaN") from None
    if found is None or not math.isfinite(found):
        raise Wrong("number")
    if found < 0:
        raise Wrong("0 or more", got="a negative number")
    return found


def positive(value: Value) -> float:
    """Return the number that ``value`` is, which has to be more than 0."""
    found = number(value)
    if not found:
        raise Wrong("more than 0", got="0")
    return found


def whole(value: Value) -> int:
    """Return the whole number that ``value`` is."""
    found = number(value)
    if not found.is_integer():
        raise Wrong("whole number", got="a fraction")
    return int(found)


def rate(value: Value) -> Rate:
    """Return how often something may be done that ``value`` says, such as ``100/minute``."""
    found = _RATE.fullmatch(text(value))
    if found is None:
        raise Wrong(
            "a number per second, minute, hour or day, such as 100/minute", got="another string"
        )
    return Rate(int(found[1]), _SECONDS[found[2]])


def positive_whole(value: Value) -> int:
    """Return the whole number that ``value`` is, which has to be 1 or more."""
    positive(value)
    return whole(value)


def matching(pattern: str, wanted: str) -> Callable[[Value], str]:
    """Return a conversion to a string, all of which matches ``pattern``."""

    def convert(value: Value) -> str:
        found = text(value)
        if re.fullmatch(pattern, found):
            return found
        raise Wrong(wanted, got="another string")

    return convert


def one_of(*choices: str) -> Callable[[Value], str]:
    """Return a conversion to a string that is one of ``choices``."""
    return matching("|".join(map(re.escape, choices)), " or ".join(choices))


header = matching("[!-~]+", "visible ASCII characters only, as it travels in a header")


def url(value: Value) -> str:
    """Return the URL that ``value`` is, unchanged.

    It has to be http or https, with a host, and without user, password, query and
    fragment.
    """
    found = url_with_query(value)
    if "?" in found:
        raise Wrong("one without", got="a URL with a query")
    return found


def url_with_query(value: Value) -> str:
    """Return the URL that ``value`` is, as :func:`url`, which may have a query."""
    found = text(value)
    not_one = Wrong("an http or https URL with a host", got="another string")
    try:
        parts = urlsplit(found)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        raise not_one from None
    if _NOT_IN_URLS.search(found) or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise not_one
    if parts.username is not None or parts.password is not None:
        raise Wrong("one without", got="a URL with user or password")
    if "#" in found:
        raise Wrong("one without", got="a URL with a fragment")
    return found


def target(value: Value) -> str:
    """Return the URL that ``value`` is, its placeholders written ``{{pluginId}}``.

    Backstage may also be told of a DNS service record, ``http+srv://search.service.consul``.
    """
    found = _PLUGIN_ID.sub("{{pluginId}}", text(value))
    url(found.replace("+srv://", "://", 1) if is_service_record(found) else found)
    return found


def is_service_record(found: str) -> bool:
    """Tell whether a URL names a DNS service record, which this service does not resolve."""
    return found.startswith(("http+srv://", "https+srv://"))


def redis_url(value: Value) -> str:
    """Return the URL of a Redis database that ``value`` is; it may have user and password."""
    found = text(value)
    not_one = Wrong("a redis or rediss URL with a host", got="another string")
    try:
        parts = urlsplit(found)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        raise not_one from None
    known = parts.scheme in {"redis", "rediss"} and parts.hostname
    # In its query the client would look for time-outs and file names.
    if not known or _NOT_IN_URLS.search(found) or not re.fullmatch(r"/?\d*", parts.path):
        raise not_one
    if parts.query or parts.fragment:
        raise Wrong("one without", got="a URL with a query or a fragment")
    return found


def address(value: Value) -> tuple[str, int]:
    """Return the host and port of an address to listen at; an empty host is every one."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/]*)):([0-9]{1,5})", text(value))
    if not found or not 0 < int(found[3]) < 1 << 16:
        raise Wrong("host:port, or [IPv6 address]:port", got="another string")
    return found[1] or found[2] or "0.0.0.0", int(found[3])  # noqa: S104 - asked for


def file(value: Value) -> Path:
    """Return the absolute path of a file that is there, or can be made there.

    A relative path begins at the working directory, as in Backstage.
    """
    path = _path(value)
    if path.exists() and not path.is_file():
        raise Wrong("a file", got="the path of something else")
    return path


def existing_file(value: Value) -> Path:
    """Return the absolute path of a file that is there, as :func:`file`."""
    path = _path(value)
    if not path.is_file():
        raise Wrong(f"the path of a file; a relative one begins at {Path.cwd()}", got="no file")
    return path


def _path(value: Value) -> Path:
    found = text(value)
    if "\0" in found:
        raise Wrong("the path of a file", got="no path")
    return Path(found).absolute()


def base64_bytes(value: Value) -> bytes:
    """Return the bytes that ``value`` is in base64, with either alphabet, padded or not."""
    standard = text(value).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        found = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise Wrong("base64", got="another string")
    return found
