"""The types of single values: the name of each, its conversion and its JSON Schema.

Values are converted as Backstage does it: text such as "10" or "true" counts as a number or a
boolean, and the empty string does not count as a string.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from litellm_plugin.config.report import KeyPath
from litellm_plugin.config.yaml12 import finite

WORDS = "x-words"  # our JSON Schema keyword for the name of a type

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "no", "n", "off", "0"), False),
}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_NUMBER = re.compile(
    r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|0(?:x[0-9a-f]+|o[0-7]+|b[01]+)",
    re.IGNORECASE,
)
_NOT_IN_URLS = re.compile(r"[\s\x00-\x1f\x7f\\]")
_PLUGIN_ID = re.compile(r"\{\{\s*pluginId\s*\}\}")


def wrong(
    wanted: str, got: str | None = None, at: KeyPath = (), word: str | None = None
) -> PydanticCustomError:
    """Return the error for a value that is not as wanted.

    Args:
        wanted: Description of valid values.
        got: Description of the value, without quoting it; None to quote a string that is no
            secret, and to name the type of other values.
        at: Path of the wrong part inside the value.
        word: The wrong part of a string or list, to quote instead of all of it.
    """
    context = {"wanted": wanted, "got": got, "at": at, "word": word}
    return PydanticCustomError("wrong", "{wanted}", context)


def fault(text: str, at: KeyPath = ()) -> PydanticCustomError:
    """Return an error with its own text; "missing" is reported as a missing key."""
    return PydanticCustomError("fault", "{text}", {"text": text, "at": at})


def kind(value: Any) -> str:
    """Return the name of the type of ``value`` for messages."""
    names = {bool: "boolean", str: "string", list: "list", dict: "object", type(None): "null"}
    return "empty string" if value == "" else names.get(type(value), "number")


class Value:
    """Annotation of a type: how values are converted, and its JSON Schema.

    Args:
        convert: Returns the converted value. Raises ValueError for a wrong value, or one of
            :func:`wrong` and :func:`fault` with details.
        words: Name of the type, for problems, the reference and editors.
        keywords: Keywords of the JSON Schema.
    """

    def __init__(self, convert: Callable[[Any], Any], words: str, **keywords: Any) -> None:
        self.convert = convert
        self.words = words
        self.keywords = keywords

    def read(self, value: Any) -> Any:
        """Return the converted value."""
        try:
            return self.convert(value)
        except PydanticCustomError:
            raise
        except ValueError:
            raise wrong(self.words) from None

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        # Given as metadata because a __get_pydantic_json_schema__ would override the schema of
        # a `WrittenAs` around this type.
        described = {"pydantic_js_functions": [lambda *_: {WORDS: self.words, **self.keywords}]}
        return core_schema.no_info_plain_validator_function(self.read, metadata=described)


@dataclass(frozen=True, slots=True)
class WrittenAs:
    """Annotation of a type whose values are written as objects of another class."""

    model: type  # the other class
    take: Callable[[Any, Any], Any]  # returns the value, given a `model` and the object as written
    bare: bool = False  # whether the value may also be written without the object

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        written = core_schema.no_info_wrap_validator_function(
            lambda value, read: self.take(read(value), value), handler.generate_schema(self.model)
        )
        if not self.bare:
            return written
        return core_schema.tagged_union_schema(
            {"<object>": written, "<bare>": handler(source)},
            discriminator=lambda value: "<object>" if isinstance(value, dict) else "<bare>",
        )


def text(value: Any) -> str:
    """Check a string that is not empty."""
    if isinstance(value, str) and value:
        return value
    raise wrong("string")


def blank_or(kind: Value) -> Value:
    """Return the type ``kind`` in which the empty string is a value, too."""
    return Value(
        lambda value: value if value == "" else kind.read(value),
        kind.words,
        anyOf=[kind.keywords, {"const": ""}],
    )


def flag(value: Any) -> bool:
    """Convert to a boolean; 1, ``yes`` and ``Off`` are valid, too."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if isinstance(value, bool | int | float) and value in {0, 1}:
        word = str(int(value))
    if word not in _BOOLEANS:
        raise ValueError
    return _BOOLEANS[word]


def number(value: Any) -> float:
    """Convert to a finite number of 0 or more.

    Text is read like JavaScript's ``Number`` reads it: empty text is 0, ``0x10`` is 16.
    """
    word = str(value).strip() or "0"
    if type(value) not in {str, int, float} or not _NUMBER.fullmatch(word):
        raise ValueError
    result = finite(str(int(word, 0)) if word[:2].lower() in {"0x", "0o", "0b"} else word)
    if result < 0:
        raise wrong("0 or more", "a negative number")
    return result


def positive(value: Any) -> float:
    """Convert to a number of more than 0."""
    if found := number(value):
        return found
    raise wrong("more than 0", "0")


def whole(value: Any) -> int:
    """Convert to a whole number of 0 or more."""
    found = number(value)
    if found.is_integer():
        return int(found)
    raise wrong("whole number", "a fraction")


def seconds(value: Any) -> float:
    """Convert a duration such as ``10m`` to seconds."""
    if found := re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", text(value)):
        return float(int(found[1]) * _UNITS[found[2]])
    raise ValueError


def spans(value: Any) -> tuple[float, ...]:
    """Convert a list of durations to seconds, the longest first."""
    return tuple(sorted({seconds(item) for item in texts(value)}, reverse=True))


def percentages(value: Any) -> tuple[float, ...]:
    """Convert a list of numbers from 1 to 100, the lowest first."""
    if not isinstance(value, list):
        raise ValueError
    found = {number(item) for item in value}
    if any(not 1 <= item <= 100 for item in found):
        raise ValueError
    return tuple(sorted(found))


def url_with_query(value: Any) -> str:
    """Check an http or https URL: it has a host, and no user, password and fragment."""
    parts = _split(value, {"http", "https"})
    if parts.username is not None or parts.password is not None:
        raise wrong("one without", "a URL with user or password")
    if "#" in value:
        raise wrong("one without", "a URL with a fragment")
    return text(value)


def url(value: Any) -> str:
    """Check a URL as :func:`url_with_query` does; a query is an error, too."""
    found = url_with_query(value)
    if "?" in found:
        raise wrong("one without", "a URL with a query")
    return found


def target(value: Any) -> str:
    """Convert to a URL whose placeholders are written ``{{pluginId}}``.

    Backstage also accepts DNS service records, such as ``http+srv://search.service.consul``.
    """
    found = _PLUGIN_ID.sub("{{pluginId}}", text(value))
    url(found.replace("+srv://", "://", 1) if is_service_record(found) else found)
    return found


def is_service_record(url: str) -> bool:
    """Tell whether ``url`` is a DNS service record, which this service does not resolve."""
    return url.startswith(("http+srv://", "https+srv://"))


def redis_url(value: Any) -> str:
    """Check the URL of a Redis database, which may have user and password."""
    parts = _split(value, {"redis", "rediss"})
    if not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError
    if parts.query or parts.fragment:  # in which the client would read time-outs and file names
        raise wrong("one without", "a URL with a query or a fragment")
    return text(value)


def _split(value: Any, schemes: set[str]) -> SplitResult:
    parts = urlsplit(text(value))
    parts.port  # noqa: B018 - raises where it is not a number
    if _NOT_IN_URLS.search(value) or parts.scheme not in schemes or not parts.hostname:
        raise ValueError
    return parts


def address(value: Any) -> tuple[str, int]:
    """Convert to host and port of an address to listen at; an empty host is every address."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/]*)):([0-9]{1,5})", text(value))
    if not found or not 0 < int(found[3]) < 1 << 16:
        raise ValueError
    return found[1] or found[2] or "0.0.0.0", int(found[3])  # noqa: S104 - asked for


def file(value: Any) -> Path:
    """Convert to the absolute path of a file, which need not exist.

    A relative path begins at the working directory, as in Backstage.
    """
    path = _path(value)
    if path.exists() and not path.is_file():
        raise wrong("the path of a file")
    return path


def existing_file(value: Any) -> Path:
    """Convert to the absolute path of a file that exists."""
    path = _path(value)
    if path.is_file():
        return path
    raise wrong(f"the path of a file that exists; a relative one begins at {Path.cwd()}")


def _path(value: Any) -> Path:
    if "\0" in text(value):
        raise ValueError
    return Path(value).absolute()


def base64_bytes(value: Any) -> bytes:
    """Convert base64, in either alphabet and with or without padding, to bytes."""
    standard = text(value).rstrip("=").translate(str.maketrans("-_", "+/"))
    if found := base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True):
        return found
    raise ValueError


def webhook_secret(value: Any) -> str:
    """Check a secret of Standard Webhooks: ``whsec_`` and the base64 of 24 to 64 bytes."""
    prefix, mark, encoded = text(value).partition("whsec_")
    if prefix or not mark or not 24 <= len(base64.b64decode(encoded, validate=True)) <= 64:
        raise ValueError
    return text(value)


def texts(value: Any) -> tuple[str, ...]:
    """Convert a list of strings to a tuple."""
    if not isinstance(value, list):
        raise wrong("list of strings")
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise wrong("string", kind(item), at=(index,))
    return tuple(value)


def text_or_texts(value: Any) -> tuple[str, ...]:
    """Convert a string or a list of strings to a tuple."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return texts(value)
    raise ValueError


def header_names(value: Any) -> tuple[str, ...]:
    """Convert names of headers or methods, also with commas between them, to a tuple."""
    names = (name.strip() for text in text_or_texts(value) for name in text.split(","))
    return tuple(name for name in names if name)


def words(value: Any) -> tuple[str, ...]:
    """Convert a list of words, or text with commas or spaces between words, to a tuple.

    Words limit what a token can do. No word at all would be no limit, so it is an error.
    """
    found = [word for text in text_or_texts(value) for word in re.split("[ ,]", text) if word]
    return tuple(dict.fromkeys(some(found)))


def anything(value: Any) -> dict[str, Any]:
    """Check an object with any content."""
    if isinstance(value, dict):
        return value
    raise ValueError


def some(value: Any) -> Any:
    """Refuse an empty list, where a list limits something."""
    if value == []:
        raise wrong("at least one entry; leave the key out for no limit", "no entry")
    return value


# Functions that return types


def pattern(regex: str, words: str, **keywords: Any) -> Value:
    """Return the type of a string that matches ``regex`` as a whole."""

    def convert(value: Any) -> str:
        if re.fullmatch(regex, text(value)):
            return str(value)
        raise ValueError

    return Value(convert, words, type="string", **keywords or {"pattern": f"^(?:{regex})$"})


def either(choices: Sequence[str]) -> str:
    """Return ``choices`` in words, such as ``a, b or c``."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


def one_of(*choices: str) -> Value:
    """Return the type of a string that is one of ``choices``."""
    return pattern("|".join(map(re.escape, choices)), either(choices), enum=list(choices))


def some_of(*choices: str) -> AfterValidator:
    """Return the check that all of several strings are among ``choices``."""

    def check(found: tuple[str, ...]) -> tuple[str, ...]:
        for word in found:
            if word not in choices:
                raise wrong(f"only {either(choices)}", word=word)
        return found

    return AfterValidator(check)


def or_unlimited(limit: Value, meaning: str | None = None) -> Value:
    """Return the type ``limit`` in which the word ``unlimited`` is converted to ``meaning``."""
    return Value(
        lambda value: meaning if value == "unlimited" else limit.read(value),
        f"{limit.words} or unlimited",
        anyOf=[limit.keywords, {"const": "unlimited"}],
    )


# The types

_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_NUMERIC: dict[str, Any] = {"type": ["number", "string"], "minimum": 0}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
_ONE_OR_MORE: dict[str, Any] = {"anyOf": [_STRING, _STRINGS]}
_HTTP: dict[str, Any] = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}
_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519"),
)

_TEXT = Value(text, "string", **_STRING)
_ENTITY_REF = Value(text, "entity ref", **_STRING)
_DURATION = pattern("[1-9][0-9]{0,5}(?:s|m|h|d|w|mo)", "duration like 30d (s, m, h, d, w, mo)")
_LONG_DURATION = pattern(
    "[1-9][0-9]{0,4}(?:s|m|h|d|w|mo|y)", "duration like 30d (s, m, h, d, w, mo, y)"
)
_PERIOD = pattern("[1-9][0-9]{0,5}[smhdw]", "duration like 8h (s, m, h, d, w)")
_POSITIVE = Value(positive, "number", **_NUMERIC)
_WHOLE = Value(whole, "whole number", **_NUMERIC)
_SOME_STRINGS = "string or list of strings"
_WORDS = Value(words, _SOME_STRINGS, **_ONE_OR_MORE)

Text = Annotated[str, _TEXT]
BlankText = Annotated[str, blank_or(_TEXT)]
Header = Annotated[str, pattern("[!-~]+", "string of visible ASCII characters")]
PluginId = Annotated[str, pattern("[A-Za-z0-9_-]+", "string of letters, digits, - and _")]
Subject = Annotated[str, pattern(r"\S+", "string without spaces")]
StaticToken = Annotated[str, pattern(r"\S{8,}", "string of 8 or more characters, without spaces")]
Duration = Annotated[str, _LONG_DURATION]
BlankDuration = Annotated[str, blank_or(_LONG_DURATION)]
EntityRef = Annotated[str, _ENTITY_REF]
BlankEntityRef = Annotated[str, blank_or(_ENTITY_REF)]
Algorithm = Annotated[str, one_of(*_ALGORITHMS)]
Url = Annotated[str, Value(url, "http or https URL", **_HTTP)]
BaseUrl = Annotated[str, Value(lambda value: url(value).rstrip("/"), "http or https URL", **_HTTP)]
UrlWithQuery = Annotated[str, Value(url_with_query, "http or https URL", **_HTTP)]
Target = Annotated[str, Value(target, "http or https URL", type="string")]
RedisUrl = Annotated[str, Value(redis_url, "redis or rediss URL", type="string")]
Flag = Annotated[bool, Value(flag, "boolean", enum=[True, False, 0, 1, *_BOOLEANS])]
Period = Annotated[str, _PERIOD]
ToolName = Annotated[
    str, pattern(r"\*|[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, ., _ and -, or *")
]
Seconds = Annotated[float, Value(seconds, "duration like 10m (s, m, h, d, w)", **_STRING)]
Number = Annotated[float, Value(number, "number", **_NUMERIC)]
Positive = Annotated[float, _POSITIVE]
Whole = Annotated[int, _WHOLE]
Address = Annotated[tuple[str, int], Value(address, "host:port or [IPv6 address]:port", **_STRING)]
File = Annotated[Path, Value(file, "path", **_STRING)]
ExistingFile = Annotated[Path, Value(existing_file, "path", **_STRING)]
Base64 = Annotated[bytes, Value(base64_bytes, "base64", **_STRING)]
WebhookSecret = Annotated[
    str, Value(webhook_secret, "whsec_ and the base64 of 24 to 64 bytes", **_STRING)
]
Texts = Annotated[tuple[str, ...], Value(texts, "list of strings", **_STRINGS)]
TextOrTexts = Annotated[tuple[str, ...], Value(text_or_texts, _SOME_STRINGS, **_ONE_OR_MORE)]
HeaderNames = Annotated[tuple[str, ...], Value(header_names, _SOME_STRINGS, **_ONE_OR_MORE)]
Words = Annotated[tuple[str, ...], _WORDS]
WordSet = Annotated[frozenset[str], _WORDS, AfterValidator(frozenset)]
Algorithms = Annotated[tuple[str, ...], _WORDS, some_of(*_ALGORITHMS)]
Actions = Annotated[
    tuple[str, ...],
    Value(words, "create, read, update or delete, or a list of them", **_ONE_OR_MORE),
    some_of("create", "read", "update", "delete"),
]
Anything = Annotated[Mapping[str, Any], Value(anything, "object", type="object")]

DurationLimit = Annotated[str | None, or_unlimited(_DURATION)]
# None allows no budget_duration, so "unlimited" is "0s", which allows any.
ResetLimit = Annotated[str | None, or_unlimited(_DURATION, "0s")]
PositiveLimit = Annotated[float | None, or_unlimited(_POSITIVE)]
PositiveWholeLimit = Annotated[
    int | None,
    or_unlimited(Value(lambda value: positive(value) and whole(value), "whole number", **_NUMERIC)),
]
WholeLimit = Annotated[int | None, or_unlimited(_WHOLE)]
TextsLimit = Annotated[
    tuple[str, ...] | None,
    or_unlimited(Value(lambda value: texts(some(value)), "list of strings", **_STRINGS)),
]
