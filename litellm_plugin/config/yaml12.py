"""Reads YAML 1.2 with the core schema, like Backstage, with PyYAML's parser.

PyYAML resolves scalars by YAML 1.1: ``yes`` is a boolean, ``017`` is 15 and ``2026-01-01`` a
date. Here they are a string, 17 and a string. Infinity and NaN are strings, too, because JSON
does not have them.

Messages do not quote the text, which may contain a secret.
"""

from __future__ import annotations

import math
import re
from typing import TypeAlias

import yaml

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"

_TAG = "tag:yaml.org,2002:"
# Scalars of the core schema: https://yaml.org/spec/1.2.2/#1032-tag-resolution
_SCALARS = {
    f"{_TAG}{name}": re.compile(rf"(?:{form})\Z")
    for name, form in {
        "null": "(?:~|null|Null|NULL)?",
        "bool": "true|True|TRUE|false|False|FALSE",
        "int": "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
        "float": r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
    }.items()
}
# Line breaks in YAML 1.1 and PyYAML, but not in YAML 1.2.
_OTHER_BREAKS = re.compile("[\x85\u2028\u2029]")

_QUOTED = re.compile(r"""\s*(['"])(.*?)\1""", re.DOTALL)
_HARMLESS = re.compile(r"<[a-z ]+>|[][{}:,?%@`&*!|>-]|\\t")
_IN_PLAIN_WORDS = {
    "found character '\\t' that cannot start any token": "a tab; write spaces",
    "mapping values are not allowed here": (
        "a colon where none may be; check the indentation, and quote text with a colon"
    ),
    "second occurrence": "an anchor that is defined twice",
    "found unconstructable recursive node": "an anchor that contains its own alias",
    "could not determine a constructor for the tag": "a tag that is not of YAML's core schema",
}


class YamlError(Exception):
    """A text is not YAML, or has YAML that is not allowed in a configuration.

    Attributes:
        line: Counted from 1.
    """

    def __init__(self, message: str, line: int, column: int | None = None) -> None:
        where = f"line {line}" if column is None else f"line {line}, column {column}"
        super().__init__(f"{where}: {message}")
        self.line = line


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the scalars, lists and objects of the core schema."""


def _scalar(loader: _CoreLoader, node: yaml.ScalarNode) -> Value:
    text = loader.construct_scalar(node)
    kind = node.tag.removeprefix(_TAG)
    if not _SCALARS[node.tag].match(text):
        raise _error(node, f"not of the type that its tag names, {kind}")
    match kind:
        case "null":
            return None
        case "bool":
            return text[0] in "tT"
        case "int" if text.startswith(("0o", "0x")):
            return int(text, 0)
        case "int" if len(text) < 300:  # a longer one may be too large for a float
            return int(text)
    try:
        return finite(text)
    except ValueError:
        raise _error(node, "a number that is too large") from None


def finite(text: str) -> float:
    """Convert ``text`` to a number.

    Raises:
        ValueError: The text is no number, NaN, or too large for a float.
    """
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(text)


def _list(loader: _CoreLoader, node: yaml.SequenceNode) -> Value:
    return [loader.construct_object(item, deep=True) for item in node.value]


def _object(loader: _CoreLoader, node: yaml.MappingNode) -> Value:
    result: dict[str, Value] = {}
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(key_node, "a key that is a list or an object")
        key = _key(loader.construct_object(key_node, deep=True))
        if key in first:
            raise _error(key_node, f"the key {key!r} is there already, in line {first[key]}")
        first[key] = key_node.start_mark.line + 1
        result[key] = loader.construct_object(value_node, deep=True)
    return result


def _key(value: str | float | bool | None) -> str:
    """Return ``value`` as a property name, as JavaScript converts it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


_CoreLoader.yaml_implicit_resolvers = {None: list(_SCALARS.items())}
_CoreLoader.yaml_constructors = {
    **dict.fromkeys(_SCALARS, _scalar),
    f"{_TAG}str": yaml.SafeLoader.construct_scalar,
    f"{_TAG}seq": _list,
    f"{_TAG}map": _object,
    None: yaml.SafeLoader.construct_undefined,
}


def load(text: str) -> Value:
    """Return the one document in ``text`` as plain data; None where it is empty.

    Keys of objects become strings, as in JavaScript. ``<<`` is a key like any other.

    Raises:
        YamlError: The text is not YAML, has several documents, has a key twice, or a tag that
            is not in the core schema.
    """
    if other := _OTHER_BREAKS.search(text):
        raise YamlError(
            f"U+{ord(other.group()):04X} is a line break in YAML 1.1 only: "
            'write it as an escape in "double quotes"',
            line=text.count("\n", 0, other.start()) + 1,
        )
    # The error is raised outside of the handlers, because a traceback would show PyYAML's
    # own error, which quotes the text.
    try:
        loader = _CoreLoader(text)
        try:
            value: Value = loader.get_single_data()
        finally:
            loader.dispose()
        return value
    except yaml.YAMLError as exc:
        fault = _fault(exc, text)
    except YamlError as exc:
        fault = exc
    except RecursionError:
        fault = YamlError("nested too deeply", line=1)
    fault.__context__ = None
    raise fault


def _fault(exc: yaml.YAMLError, text: str) -> YamlError:
    if isinstance(exc, yaml.reader.ReaderError):
        line = text.count("\n", 0, exc.position) + 1
        return YamlError("a character that YAML does not allow", line)
    if isinstance(exc, yaml.MarkedYAMLError) and (mark := exc.problem_mark or exc.context_mark):
        problem = _QUOTED.sub(_harmless, exc.problem or exc.context or "not YAML")
        return YamlError(_IN_PLAIN_WORDS.get(problem, problem), mark.line + 1, mark.column + 1)
    return YamlError("not YAML", line=1)


def _harmless(quoted: re.Match[str]) -> str:
    """Return a quotation in PyYAML's message only if it is YAML's punctuation, else nothing."""
    return quoted.group() if _HARMLESS.fullmatch(quoted.group(2)) else ""


def _error(node: yaml.Node, message: str) -> YamlError:
    return YamlError(message, node.start_mark.line + 1, node.start_mark.column + 1)
