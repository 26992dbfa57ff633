"""The types of single values: how the text of a configuration becomes each, or why not.

Conversions are those of Backstage's getters: text that is a number or a boolean counts as
one, and the empty string is not a string. A fault names what was wanted, and never the value.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "no", "n", "off", "0"), False),
}
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_RADIX = re.compile(r"0(?:[xX][0-9a-fA-F]+|[oO][0-7]+|[bB][01]+)")
_NOT_IN_URLS = re.compile(r"[\s\x00-\x1f\x7f\\]")
_PLUGIN_ID = re.compile(r"\{\{\s*pluginId\s*\}\}")

WORDS = "x-type"  # the keyword of our JSON Schemas that says what a type is called
NOT_EMPTY = "something; leave the key out if there is to be no limit"

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519"),
)


_STRING: dict[str, Any] = {"type": "string", "minLength": 1}
_NUMERIC: dict[str, Any] = {"type": ["number", "string"], "minimum": 0}
_STRINGS: dict[str, Any] = {"type": "array", "items": _STRING}
_ONE_OR_MORE: dict[str, Any] = {"anyOf": [_STRING, _STRINGS]}
_HTTP: dict[str, Any] = {"type": "string", "pattern": "^[Hh][Tt][Tt][Pp][Ss]?://"}


def wrong(wanted: str, got: str | None = None, at: tuple[str | int, ...] = ()) -> Exception:
    """Return the error that a value is not what is wanted.

    Args:
        wanted: What is wanted, in words.
        got: What the value is, in words that do not quote it; None where its type says enough.
        at: Where the fault is below the value that is read.
    """
    return PydanticCustomError("wrong", "{wanted}", {"wanted": wanted, "got": got, "at": at})


def fault(text: str, at: tuple[str | int, ...] = ()) -> Exception:
    """Return the error that ``text`` tells in full, ``missing`` among them."""
    return PydanticCustomError("fault", "{text}", {"text": text, "at": at})


def kind(value: Any) -> str:
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


class Value:
    """Says of a type how a value becomes one, and what it is in a JSON Schema.

    Args:
        convert: Returns the value, or raises :func:`wrong`.
        words: What the type is called, in the reference and in editors.
        keywords: Of JSON Schema.
    """

    def __init__(self, convert: Callable[[Any], Any], words: str, **keywords: Any) -> None:
        self.convert = convert
        self.words = words
        self.keywords = keywords

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        # In the metadata, and no method, so that a `WrittenAs` around this type is not hidden.
        described = {"pydantic_js_functions": [lambda *_: {WORDS: self.words, **self.keywords}]}
        return core_schema.no_info_plain_validator_function(self.convert, metadata=described)


@dataclass(frozen=True, slots=True)
class WrittenAs:
    """Says of a type that its values are written as objects of another class.

    Attributes:
        model: The class.
        take: Makes the value of an instance, and of the object as it was written.
        bare: Whether the value may also be written without the object.
    """

    model: type
    take: Callable[[Any, Any], Any]
    bare: bool = False

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


def blank_or_text(value: Any) -> str:
    """Return the string that ``value`` is, the empty one too."""
    if isinstance(value, str):
        return value
    raise wrong("string")


def text(value: Any) -> str:
    """Return the string that ``value`` is, if it is not empty."""
    if isinstance(value, str) and value:
        return value
    raise wrong("string")


def flag(value: Any) -> bool:
    """Return the boolean that ``value`` is; 1, ``yes`` and ``Off`` are booleans too."""
    word = value.strip().lower() if isinstance(value, str) else ""
    if isinstance(value, bool | int | float) and value in {0, 1}:
        word = str(int(value))
    if word in _BOOLEANS:
        return _BOOLEANS[word]
    raise wrong("boolean")


def number(value: Any) -> float:
    """Return the number that ``value`` is or says in text: finite, and not negative.

    Text is read as JavaScript's ``Number`` does: empty text is 0, and ``0x10`` is 16.
    """
    found = math.nan
    try:
        if isinstance(value, str):
            word = value.strip() or "0"
            if _RADIX.fullmatch(word):
                found = float(int(word, 0))
            elif _NUMBER.fullmatch(word):
                found = float(word)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found = float(value)
    except OverflowError:
        raise wrong("number", got="infinity or NaN") from None
    if not math.isfinite(found):
        raise wrong("number")
    if found < 0:
        raise wrong("0 or more", got="a negative number")
    return found


def positive(value: Any) -> float:
    """Return the number that ``value`` is, if it is more than 0."""
    if found := number(value):
        return found
    raise wrong("more than 0", got="0")


def whole(value: Any) -> int:
    """Return the whole number that ``value`` is."""
    found = number(value)
    if not found.is_integer():
        raise wrong("whole number", got="a fraction")
    return int(found)


def positive_whole(value: Any) -> int:
    """Return the whole number that ``value`` is, if it is 1 or more."""
    positive(value)
    return whole(value)


def matching(pattern: str, wanted: str) -> Callable[[Any], str]:
    """Return a conversion to a string, all of which matches ``pattern``."""

    def convert(value: Any) -> str:
        found = text(value)
        if re.fullmatch(pattern, found):
            return found
        raise wrong(wanted, got="another string")

    return convert


def either(choices: Sequence[str]) -> str:
    """Return ``choices`` in words, such as ``a, b or c``."""
    *others, last = choices
    return f"{', '.join(others)} or {last}" if others else last


header = matching("[!-~]+", "visible ASCII characters only, as it travels in a header")


def one_of(*choices: str, words: str = "") -> Value:
    """Return the type of a string that is one of ``choices``."""
    wanted = matching("|".join(map(re.escape, choices)), either(choices))
    return Value(wanted, words or either(choices), enum=list(choices))


def or_unlimited(limit: Value, meaning: str | None = None) -> Value:
    """Return the type ``limit``, in which the word ``unlimited`` stands for ``meaning``."""
    return Value(
        lambda value: meaning if value == "unlimited" else limit.convert(value),
        f"{limit.words} or unlimited",
        anyOf=[limit.keywords, {"const": "unlimited"}],
    )


def url(value: Any) -> str:
    """Return the URL that ``value`` is, unchanged.

    Its scheme is http or https; it has a host, and no user, password, query and fragment.
    """
    found = url_with_query(value)
    if "?" in found:
        raise wrong("one without", got="a URL with a query")
    return found


def url_with_query(value: Any) -> str:
    """Return the URL that ``value`` is, as :func:`url`; it may have a query."""
    parts = _split(value, {"http", "https"}, "an http or https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise wrong("one without", got="a URL with user or password")
    if "#" in value:
        raise wrong("one without", got="a URL with a fragment")
    return text(value)


def target(value: Any) -> str:
    """Return the URL that ``value`` is, its placeholders written ``{{pluginId}}``.

    Backstage can also be given a DNS service record, ``http+srv://search.service.consul``.
    """
    found = _PLUGIN_ID.sub("{{pluginId}}", text(value))
    url(found.replace("+srv://", "://", 1) if is_service_record(found) else found)
    return found


def is_service_record(url: str) -> bool:
    """Return whether ``url`` names a DNS service record, which this service does not resolve."""
    return url.startswith(("http+srv://", "https+srv://"))


def redis_url(value: Any) -> str:
    """Return the URL of a Redis database that ``value`` is; it may have user and password."""
    wanted = "a redis or rediss URL with a host"
    parts = _split(value, {"redis", "rediss"}, wanted)
    if not re.fullmatch(r"/?\d*", parts.path):
        raise wrong(wanted, got="another string")
    if parts.query or parts.fragment:  # where the client would look for time-outs and file names
        raise wrong("one without", got="a URL with a query or a fragment")
    return text(value)


def _split(value: Any, schemes: set[str], wanted: str) -> SplitResult:
    found = text(value)
    try:
        parts = urlsplit(found)
        parts.port  # noqa: B018 - raises where it is not a number
    except ValueError:
        raise wrong(wanted, got="another string") from None
    if _NOT_IN_URLS.search(found) or parts.scheme not in schemes or not parts.hostname:
        raise wrong(wanted, got="another string")
    return parts


def address(value: Any) -> tuple[str, int]:
    """Return the host and port of an address to listen at; an empty host is every one."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/]*)):([0-9]{1,5})", text(value))
    if not found or not 0 < int(found[3]) < 1 << 16:
        raise wrong("host:port, or [IPv6 address]:port", got="another string")
    return found[1] or found[2] or "0.0.0.0", int(found[3])  # noqa: S104 - asked for


def file(value: Any) -> Path:
    """Return the absolute path of a file that is there, or can be made there.

    A relative path begins at the working directory, as in Backstage.
    """
    path = _path(value)
    if path.exists() and not path.is_file():
        raise wrong("a file", got="the path of something else")
    return path


def existing_file(value: Any) -> Path:
    """Return the absolute path of a file that is there, as :func:`file`."""
    path = _path(value)
    if not path.is_file():
        raise wrong(f"the path of a file; a relative one begins at {Path.cwd()}", got="no file")
    return path


def _path(value: Any) -> Path:
    found = text(value)
    if "\0" in found:
        raise wrong("the path of a file", got="no path")
    return Path(found).absolute()


def base64_bytes(value: Any) -> bytes:
    """Return the bytes that ``value`` is in base64, with either alphabet, padded or not."""
    standard = text(value).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        found = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise wrong("base64", got="another string")
    return found


def texts(value: Any) -> tuple[str, ...]:
    """Return the strings of the list ``value``."""
    if not isinstance(value, list):
        raise wrong("list of strings")
    for index, item in enumerate(value):
        if not isinstance(item, str) or not item:
            raise wrong("string", got=kind(item), at=(index,))
    return tuple(value)


def some_texts(value: Any) -> tuple[str, ...]:
    """Return the strings of the list ``value``, which names at least one."""
    if found := texts(value):
        return found
    raise fault("names nothing; write unlimited if everything is allowed")


def text_or_texts(value: Any) -> tuple[str, ...]:
    """Return the string, or the strings of the list, that ``value`` is."""
    if not isinstance(value, str | list):
        raise wrong("string or list of strings")
    return texts(value) if isinstance(value, list) else (value,)


def header_names(value: Any) -> tuple[str, ...]:
    """Return the names of headers, or of methods, in ``value``, with commas between them."""
    names = (name.strip() for text in text_or_texts(value) for name in text.split(","))
    return tuple(name for name in names if name)


def _words(value: Any) -> tuple[str, ...]:
    """Return the words in ``value``: a list, or text with commas or spaces between them.

    They limit what a token can do, so that no word at all would be no limit, and is a fault.
    """
    found = [word for text in text_or_texts(value) for word in re.split("[ ,]", text) if word]
    if not found:
        raise wrong(NOT_EMPTY, got="nothing")
    return tuple(dict.fromkeys(found))


def _among(
    convert: Callable[[Any], tuple[str, ...]], known: Sequence[str]
) -> Callable[[Any], tuple[str, ...]]:
    def converted(value: Any) -> tuple[str, ...]:
        found = convert(value)
        if not set(found) <= set(known):
            raise fault(f"wanted only {', '.join(known)}")
        return found

    return converted


def texts_among(*known: str) -> Value:
    """Return the type of a list of strings that are all ``known``."""
    items = {"enum": list(known)}
    return Value(_among(texts, known), f"list of {either(known)}", type="array", items=items)


def words_among(*known: str, words: str = "") -> Value:
    """Return the type of words, in a list or in text, that are all ``known``."""
    return Value(
        _among(_words, known), words or f"{either(known)}, or a list of them", **_ONE_OR_MORE
    )


def anything(value: Any) -> dict[str, Any]:
    """Return the object that ``value`` is; it may hold whatever JSON can write."""
    if not isinstance(value, dict):
        raise wrong("object")
    for path, found in _floats(value, ()):
        if not math.isfinite(found):
            raise wrong("number", got=kind(found), at=path)
    return value


def _floats(
    value: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """Yield every fraction in ``value``, and where it is."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, list | dict):
        items = enumerate(value) if isinstance(value, list) else value.items()
        for key, item in items:
            yield from _floats(item, (*path, key))


# Settings are declared with these.

_DURATION = Value(
    matching(
        r"[1-9][0-9]{0,5}(s|m|h|d|w|mo)", "a number and one of s, m, h, d, w and mo, such as 30d"
    ),
    "duration",
    type="string",
    pattern="^[1-9][0-9]{0,5}(s|m|h|d|w|mo)$",
)
_POSITIVE = Value(positive, "number", **_NUMERIC)
_WHOLE = Value(whole, "whole number", **_NUMERIC)
_POSITIVE_WHOLE = Value(positive_whole, "whole number", **_NUMERIC)
_WORDS = Value(_words, "string or list of strings", **_ONE_OR_MORE)
_SOME_TEXTS = Value(some_texts, "list of strings", **_STRINGS, minItems=1)

Text = Annotated[str, Value(text, "string", **_STRING)]
BlankText = Annotated[str, Value(blank_or_text, "string", type="string")]
EntityRef = Annotated[str, Value(text, "entity ref", **_STRING)]
BlankEntityRef = Annotated[str, Value(blank_or_text, "entity ref", type="string")]
Header = Annotated[str, Value(header, "string", **_STRING)]
PluginId = Annotated[
    str, Value(matching(r"[A-Za-z0-9_-]+", "letters, digits, - and _ only"), "string", **_STRING)
]
Subject = Annotated[str, Value(matching(r"\S+", "text without spaces"), "string", **_STRING)]
StaticToken = Annotated[
    str, Value(matching(r"\S{8,}", "8 or more characters, without spaces"), "string", **_STRING)
]
Algorithm = Annotated[str, one_of(*ALGORITHMS, words="string")]
Url = Annotated[str, Value(url, "URL", **_HTTP)]
BaseUrl = Annotated[str, Value(lambda value: url(value).rstrip("/"), "URL", **_HTTP)]
UrlWithQuery = Annotated[str, Value(url_with_query, "URL", **_HTTP)]
Target = Annotated[str, Value(target, "URL", type="string", pattern=r"^https?(\+srv)?://")]
RedisUrl = Annotated[str, Value(redis_url, "URL", type="string", pattern="^rediss?://")]
Flag = Annotated[bool, Value(flag, "boolean", enum=[True, False, 0, 1, *_BOOLEANS])]
Number = Annotated[float, Value(number, "number", **_NUMERIC)]
Positive = Annotated[float, _POSITIVE]
Whole = Annotated[int, _WHOLE]
Address = Annotated[tuple[str, int], Value(address, "host and port", **_STRING)]
File = Annotated[Path, Value(file, "path", **_STRING)]
ExistingFile = Annotated[Path, Value(existing_file, "path", **_STRING)]
Base64 = Annotated[bytes, Value(base64_bytes, "base64", **_STRING)]
Texts = Annotated[tuple[str, ...], Value(texts, "list of strings", **_STRINGS)]
TextOrTexts = Annotated[
    tuple[str, ...], Value(text_or_texts, "string or list of strings", **_ONE_OR_MORE)
]
HeaderNames = Annotated[
    tuple[str, ...], Value(header_names, "string or list of strings", **_ONE_OR_MORE)
]
Words = Annotated[tuple[str, ...], _WORDS]
WordSet = Annotated[frozenset[str], _WORDS, AfterValidator(frozenset)]
Algorithms = Annotated[tuple[str, ...], words_among(*ALGORITHMS, words="string or list of strings")]
Anything = Annotated[Mapping[str, Any], Value(anything, "object", type="object")]

DurationLimit = Annotated[str | None, or_unlimited(_DURATION)]
# Where no shortest time is configured, no budget may be reset; "0s" allows any.
ResetLimit = Annotated[str | None, or_unlimited(_DURATION, "0s")]
PositiveLimit = Annotated[float | None, or_unlimited(_POSITIVE)]
PositiveWholeLimit = Annotated[int | None, or_unlimited(_POSITIVE_WHOLE)]
WholeLimit = Annotated[int | None, or_unlimited(_WHOLE)]
TextsLimit = Annotated[tuple[str, ...] | None, or_unlimited(_SOME_TEXTS)]
