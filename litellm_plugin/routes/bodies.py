"""Request bodies: JSON that every parser reads the same way.

Parsers differ on duplicate names, numbers beyond the range of floats, lone surrogates and bytes
after a compressed stream. A proxy that inspects requests might read such a body differently
from LiteLLM, so the body is refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any

from flask import Request

from litellm_plugin import strict_json
from litellm_plugin.errors import (
    BadRequest,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

MAX_BODY = 102_400  # bytes, decoded; the default of Backstage's JSON parser
MAX_DEPTH = 32  # levels of objects and lists

# The charsets of RFC 8259 and its predecessors; Python knows others, such as UTF-7.
_CHARSETS = re.compile(r"utf-(8|(16|32)([lb]e)?)")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # in PostgreSQL or UTF-8
_UNREADABLE = "The request body is not valid JSON"


def read(request: Request) -> Any:
    """Return the JSON object or list of a request; None without one.

    Raises:
        PayloadTooLarge: The body has more than ``MAX_BODY`` bytes.
        RequestTimeout: The body did not come in time.
        UnsupportedMediaType: Charset or content encoding is not supported.
        BadRequest: The body can't be read, or parsers could read it in two ways.
    """
    if request.mimetype != "application/json":
        return None
    if (request.content_length or 0) > MAX_BODY:
        raise PayloadTooLarge("request entity too large")
    try:
        data = request.stream.read(MAX_BODY + 1)
    except TimeoutError as exc:
        raise RequestTimeout("The request body took too long") from exc
    except Exception as exc:  # servers have exceptions of their own for broken chunks
        raise BadRequest("The request body can't be read") from exc
    if len(data) > MAX_BODY:
        raise PayloadTooLarge("request entity too large")
    data = decompressed(data, request.headers.get("Content-Encoding", ""))
    return decoded(data, request.mimetype_params.get("charset", "utf-8")) if data else None


def decoded(data: bytes, charset: str) -> Any:
    """Return the JSON object or list of a body, in a charset of the Content-Type.

    Raises:
        UnsupportedMediaType: The charset is not one of JSON's.
        BadRequest: The body is no JSON object or list, or can be read in two ways.
    """
    charset = charset.lower()
    if not _CHARSETS.fullmatch(charset):
        raise UnsupportedMediaType(f'unsupported charset "{charset.upper()}"')
    try:
        text = data.decode(charset)
        value = strict_json.loads(text)
    except strict_json.AmbiguousJsonError as exc:
        raise BadRequest(f"The request body {exc}") from exc
    except ValueError as exc:
        raise BadRequest(_UNREADABLE) from exc
    if not isinstance(value, dict | list):
        raise BadRequest("The request body must be a JSON object")
    # Without an escape, JSON holds neither NUL nor a lone surrogate.
    _check(value, texts="\\u" in text)
    return value


def decompressed(data: bytes, encoding: str) -> bytes:
    """Return a body decompressed as its Content-Encoding says.

    Raises:
        UnsupportedMediaType: The encoding is neither gzip nor deflate.
        PayloadTooLarge: The result has more than ``MAX_BODY`` bytes.
        BadRequest: The body is not exactly one compressed stream.
    """
    encoding = encoding.strip().lower()
    if not data or encoding in {"", "identity"}:
        return data
    if encoding not in {"gzip", "deflate"}:
        raise UnsupportedMediaType(f'unsupported content encoding "{encoding}"')
    stream = zlib.decompressobj(wbits=47)
    try:
        content = stream.decompress(data, MAX_BODY + 1)
    except zlib.error as exc:
        raise BadRequest("The request body can't be decompressed") from exc
    if len(content) > MAX_BODY:
        raise PayloadTooLarge("request entity too large")
    if not stream.eof or stream.unused_data:
        raise BadRequest("The request body is not one whole compressed stream")
    return content


def _check(value: Any, *, texts: bool) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if texts and any(isinstance(part, str) and _UNSTORABLE.search(part) for part in level):
            raise BadRequest("The request body has a text with half a character or a NUL")
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return
    raise BadRequest(f"The request body is nested deeper than {MAX_DEPTH} levels")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()
