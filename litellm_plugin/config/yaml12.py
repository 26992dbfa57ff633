"""YAML 1.2 with the core schema, as Backstage reads it, over PyYAML's parser.

PyYAML resolves scalars by YAML 1.1: to it ``yes`` is a boolean, ``017`` is 15
and ``2026-01-01`` a date. Here they are a string, 17 and a string.

No message quotes the text. The line with the fault may hold a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

import yaml

Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"

_TAG = "tag:yaml.org,2002:"
_DIGITS = "0123456789"
# Scalars of the core schema: tag, pattern, and the characters one can begin with.
# https://yaml.org/spec/1.2.2/#1032-tag-resolution
_SCALARS = (
    ("null", re.compile(r"(?:~|[Nn]ull|NULL)?$"), ["", "~", "n", "N"]),
    ("bool", re.compile(r"(?:[Tt]rue|TRUE|[Ff]alse|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), list("-+" + _DIGITS)),
    (
        "float",
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        list("-+." + _DIGITS),
    ),
)
_PATTERNS = {_TAG + name: pattern for name, pattern, _ in _SCALARS}

# YAML 1.1, and so PyYAML, breaks a line at these; YAML 1.2 does not.
_OTHER_BREAKS = re.compile("[\x85\u2028\u2029]")

_QUOTED = re.compile(r"""\s*(['"])(.*?)\1""", re.DOTALL)
_HARMLESS = re.compile(r"<[a-z ]+>|[][{}:,?%@`&*!|>-]|\\t")


class YamlError(Exception):
    """A text that is no YAML, or not of the kind that configuration is.

    Attributes:
        line: Counted from 1.
        column: Counted from 1; None where only the line is known.
    """

    def __init__(self, message: str, line: int, column: int | None = None) -> None:
        where = f"line {line}" if column is None else f"line {line}, column {column}"
        super().__init__(f"{where}: {message}")
        self.line = line
        self.column = column


class _CoreLoader(yaml.SafeLoader):
    """Parses, composes and resolves; the nodes are read by :func:`_plain`.

    PyYAML stops at a tab between tokens or words, and at an anchor used twice. In YAML 1.2
    the first is as good as a space, but for indentation, and the second is a new anchor.
    """

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t":
            blanks = self._blanks()
            if not self._line_so_far().strip() and self.peek(len(blanks)) not in "\0\r\n#":
                return
            self.forward(len(blanks))
            super().scan_to_next_token()

    def scan_plain_spaces(self, indent: int, start_mark: yaml.Mark) -> list[str] | None:
        blanks = self._blanks()
        if "\t" in blanks:
            self.forward(len(blanks))
            if self.peek() not in "\0\r\n":
                return [blanks]
        return super().scan_plain_spaces(indent, start_mark)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.AliasEvent):
            self.anchors.pop(event.anchor, None)
        return super().compose_node(parent, index)

    def _blanks(self) -> str:
        length = 0
        while self.peek(length) in " \t":
            length += 1
        return str(self.prefix(length))

    def _line_so_far(self) -> str:
        return str(self.buffer[self.pointer - self.column : self.pointer])


_CoreLoader.yaml_implicit_resolvers = {}  # without those of YAML 1.1
for _name, _pattern, _first in _SCALARS:
    _CoreLoader.add_implicit_resolver(_TAG + _name, _pattern, _first)


def load(text: str) -> Value:
    """Return the one document in ``text`` as plain data; None where it is empty.

    Keys of mappings become strings, as in JavaScript. ``<<`` is a key like any other.

    Raises:
        YamlError: The text is no YAML, has several documents, gives a key twice,
            or has a tag that is not of the core schema.
    """
    if other := _OTHER_BREAKS.search(text):
        raise YamlError(
            f"U+{ord(other.group()):04X} is a line break to some and not to others: "
            'write it as an escape, in "double quotes"',
            line=text.count("\n", 0, other.start()) + 1,
        )
    # The fault is raised below, outside of the handlers: as its context, PyYAML's own
    # error would be printed with it, and that one quotes the text.
    try:
        loader = _CoreLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return None if node is None else _plain(node, ())
    except yaml.YAMLError as exc:
        fault = _fault(exc, text)
    except RecursionError:
        fault = YamlError("nested too deeply", line=1)
    raise fault


def _fault(exc: yaml.YAMLError, text: str) -> YamlError:
    if isinstance(exc, yaml.reader.ReaderError):
        line = text.count("\n", 0, exc.position) + 1
        return YamlError("a character that YAML does not allow", line)
    if isinstance(exc, yaml.MarkedYAMLError) and (mark := exc.problem_mark or exc.context_mark):
        problem = _QUOTED.sub(_harmless, exc.problem or exc.context or "not YAML")
        return YamlError(problem, mark.line + 1, mark.column + 1)
    return YamlError("not YAML", line=1)


def _harmless(quoted: re.Match[str]) -> str:
    """Keep what a message quotes only if it is YAML's own, not the author's."""
    return quoted.group() if _HARMLESS.fullmatch(quoted.group(2)) else ""


def _error(node: yaml.Node, message: str) -> YamlError:
    return YamlError(message, node.start_mark.line + 1, node.start_mark.column + 1)


def _plain(node: yaml.Node, parents: tuple[yaml.Node, ...]) -> Value:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if node in parents:
        raise _error(node, "an anchor that contains its own alias")
    parents = (*parents, node)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_plain(item, parents) for item in node.value]
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return dict(_items(node, parents))
    raise _error(node, "a tag that is not of YAML's core schema")


def _items(node: yaml.MappingNode, parents: tuple[yaml.Node, ...]) -> Iterator[tuple[str, Value]]:
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _error(key_node, "a key that is a list or an object")
        key = _key(_scalar(key_node))
        if key in first:
            raise _error(key_node, f"the key {key!r} is there already, in line {first[key]}")
        first[key] = key_node.start_mark.line + 1
        yield key, _plain(value_node, parents)


def _key(value: str | float | bool | None) -> str:
    """Return the property name that JavaScript makes of ``value``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _scalar(node: yaml.ScalarNode) -> str | int | float | bool | None:
    text: str = node.value
    if node.tag == _TAG + "str":
        return text
    pattern = _PATTERNS.get(node.tag)
    if pattern is None:
        raise _error(node, "a tag that is not of YAML's core schema")
    if not pattern.fullmatch(text):
        raise _error(node, f"not what its tag says, {node.tag.removeprefix(_TAG)}")
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text[0] in "tT"
        case "int":
            return _integer(text)
        case _:
            return _float(text)


def _integer(text: str) -> int | float:
    if text.startswith(("0o", "0x")):
        return int(text, 0)
    try:
        return int(text)
    except ValueError:  # Python reads no more than 4300 digits; JavaScript has an Infinity
        return float(text)


def _float(text: str) -> float:
    return float(text.replace(".", "") if text[-1] in "fFnN" else text)
