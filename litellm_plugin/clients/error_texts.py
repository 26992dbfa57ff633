"""The sentence for people in an error body of LiteLLM.

LiteLLM has several shapes of error body, and prints Python objects into texts:
``{"error": {"message": "{'error': 'No keys found'}"}}``,
``{"detail": {"error": "No usage found"}}``,
``{"detail": [{"loc": ["body", "max_budget"], "msg": "Input should be a valid number"}]}``.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

MAX_TEXT = 10_000  # characters that are read
MAX_PRINTED = 4000  # characters of a printed object that is parsed
MAX_DEPTH = 8  # levels of nested objects, printed or not
MAX_PARTS = 10  # items of a list, or printed objects in one text

_TEXT_KEYS = ("error", "message", "detail", "msg")
_PRINTED = re.compile(r"[{\[](?=\s*['\"{\[])")  # the beginning of a printed dict or list
_TOKEN = re.compile(
    r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+"|(?P<open>[\[{(])|(?P<close>[\]})])""", re.DOTALL
)
# An attribute of a printed Python object: user_email=None, members=[Member(user_id='bob'
_ATTRIBUTE = re.compile(r"\w=(?:None\b|True\b|False\b|['\"]|\[?[A-Z]\w*\()")
# A printed Python object: Member(user_id='bob', or the attributes alone, user_id='bob' role=None
_OBJECT = re.compile(
    r"""\b[A-Z]\w*\(\w+=|\b\w+=(?:None|True|False|'[^']*'|"[^"]*"),?\s+\w+=""", re.ASCII
)
_STATUS = re.compile(r"(?:^|(?<=\s))[1-5]\d\d:\s*$")  # str() of FastAPI's HTTPException
# The text in a printed object that can't be parsed, such as one that LiteLLM has cut.
_FIELD = re.compile(r"""['"](?:error|message|detail|msg)['"]:\s*(?:'([^'{\[]++)|"([^"{\[]++))""")
_PLACES = {"body", "query", "path", "header", "cookie"}  # the first part of FastAPI's ``loc``


def sentence(value: Any, depth: int = 0) -> str:
    """Return the sentence in an error body, or in a part of one; "" where there is none.

    Args:
        value: Any JSON value.
        depth: How many objects ``value`` is nested in.
    """
    if depth > MAX_DEPTH:
        return ""
    if isinstance(value, str):
        return _without_attributes(_without_printed(value[:MAX_TEXT], depth)).strip()
    if isinstance(value, dict):
        texts = (sentence(value.get(key), depth + 1) for key in _TEXT_KEYS)
        text = next(filter(None, texts), "")
        field = _field(value.get("loc"))
        text = text.removeprefix("Value error, ")  # pydantic's, of a validator of LiteLLM
        return f"{field}: {text}" if field and text else text
    if isinstance(value, list):
        parts = [sentence(part, depth + 1) for part in value[:MAX_PARTS]]
        between = "; " if any(isinstance(part, dict) for part in value) else ", "
        return between.join(filter(None, parts))
    return ""


def _field(loc: Any) -> str:
    """Return the field that FastAPI's ``loc`` names, such as ``models.0``; "" for none."""
    parts = list(loc) if isinstance(loc, list | tuple) else []
    if parts and parts[0] in _PLACES:
        del parts[0]
    # For a body that is not JSON, ``loc`` has a position in place of a field.
    return ".".join(map(str, parts)) if parts and isinstance(parts[0], str) else ""


def _without_printed(text: str, depth: int) -> str:
    """Return a text in which each printed object is replaced by its own sentence."""
    done = ""
    for _ in range(MAX_PARTS):
        start = _PRINTED.search(text)
        if start is None:
            break
        before = _STATUS.sub("", text[: start.start()])
        printed = _balanced(text[start.start() :])
        value = _parsed(printed)
        if value is not None:
            inner = sentence(value, depth + 1)
        else:
            found = _FIELD.search(printed)
            inner = (found[1] or found[2]) if found else ""
        done += before + inner if inner else before.rstrip(" :=,-")
        text = text[start.start() + len(printed) :]
    return done + text


def _without_attributes(text: str) -> str:
    """Return the sentences of a text before the one that prints attributes of Python objects.

    If that is the first one, return its words before the object, or all of it where it only quotes
    a value, such as ``Key alias='ci' already exists``.
    """
    begun = _ATTRIBUTE.search(text)
    if begun is None:
        return text
    before, end, _ = text[: begun.start()].rpartition(". ")
    if end:
        return before + end.rstrip()
    printed = _OBJECT.search(text)
    return text[: printed.start()].rstrip(" :=,-[(") if printed else text


def _balanced(text: str) -> str:
    """Return the printed object at the start of a text; the whole text where it has no end."""
    level = 0
    for token in _TOKEN.finditer(text[:MAX_PRINTED]):
        level += bool(token["open"]) - bool(token["close"])
        if not level and token["close"]:
            return text[: token.end()]
    return text


def _parsed(printed: str) -> Any:
    """Return the dict or list that is printed as JSON or Python; None where it can't be parsed."""
    if len(printed) > MAX_PRINTED:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(printed)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, dict | list):
            return value
    return None
