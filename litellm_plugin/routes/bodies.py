"""Request bodies: JSON that means one thing only, to us and to whatever looked at it before.

Parsers differ in what they make of a name that is there twice, of a number that is
beyond what a float holds, of half a character, of what follows a compressed stream. An
inspecting proxy may have seen one thing and LiteLLM another; so none of that is read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any

from litellm_plugin import strict_json
from litellm_plugin.errors import BadRequest, PayloadTooLarge, UnsupportedMediaType

MAX_BODY = 102_400  # bytes, decoded; the default of Backstage's JSON parser
MAX_DEPTH = 32  # levels of objects and lists; LiteLLM and PostgreSQL take many more, others fewer

# Those of RFC 8259 and of its predecessors; Python's others include UTF-7.
_CHARSETS = re.compile(r"utf-(8|(16|32)([lb]e)?)")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # what PostgreSQL and UTF-8 can't hold
_UNREADABLE = "The request body is not valid JSON"


def decoded(data: bytes, charset: str) -> Any:
    """Return the JSON object or list that a body is.

    Args:
        data: At most ``MAX_BODY`` bytes.
        charset: As the Content-Type says.

    Raises:
        UnsupportedMediaType: The charset is none of JSON's.
        BadRequest: It is anything else, or can be read in two ways.
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
    # Only an escape can write what no text may hold.
    _check(value, texts="\\u" in text)
    return value


def decompressed(data: bytes, encoding: str) -> bytes:
    """Return what was compressed, or the first bytes beyond ``MAX_BODY`` of it.

    Args:
        data: As it came.
        encoding: As the Content-Encoding says.

    Raises:
        UnsupportedMediaType: The encoding is not known.
        BadRequest: It is not compressed so, or is more than one whole stream.
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
        if texts and any(isinstance(part, str) and _NO_TEXT.search(part) for part in level):
            raise BadRequest("The request body has a text with half a character or a NUL")
        level = [part for whole in level for part in _parts(whole)]
        if not level:
            return
    raise BadRequest(f"The request body is nested deeper than {MAX_DEPTH} levels")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return (*value, *value.values())
    return value if isinstance(value, list) else ()
