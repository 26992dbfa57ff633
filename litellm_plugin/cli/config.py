"""``config check`` lists keys, values, sources and faults; ``config schema`` prints a schema."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from litellm_plugin.cli.terminal import (
    FAULTY,
    MASK,
    Page,
    Row,
    captured_log,
    config_option,
    json_option,
    paths_of,
    print_json,
    printable,
)
from litellm_plugin.config import ConfigError, Reading, read_configuration
from litellm_plugin.config.report import deepest, dotted
from litellm_plugin.config.schema import Key, editor_schema
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.sources import Tree
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys
from litellm_plugin.plugin import check_installed
from litellm_plugin.redaction import redact

NAME = 26  # width of the column of names; only one name is longer


@click.group()
def config() -> None:
    """Check the configuration, or print its JSON Schema."""


@dataclass(frozen=True, slots=True)
class Line:
    """One key of the list.

    Attributes:
        key: Such as ``litellm.baseUrl``.
        value: The effective value; a secret is masked.
        usual: A default in words, for a key whose default is no single value.
        origins: The files that set the key, the last one winning; ``env`` for ``APP_CONFIG_*``.
        filled: The variable or file that the value was filled in from, if any.
    """

    key: str
    value: Any
    usual: str | None
    secret: bool
    origins: tuple[str, ...]
    filled: str | None

    @property
    def is_set(self) -> bool:
        """Whether the key is config_option, and not a default."""
        return bool(self.origins)

    @property
    def origin(self) -> str:
        """The source of the value, in words."""
        if not self.is_set:
            return "default"
        return ", ".join([*self.origins, *([self.filled] if self.filled else [])])

    def as_json(self) -> dict[str, Any]:
        """Return the documented shape."""
        return {
            "key": self.key,
            "value": self.value,
            "secret": self.secret,
            "default": not self.is_set,
            "from": list(self.origins),
            "by": self.filled,
        }


@config.command()
@config_option
@json_option
def check(files: Sequence[Path], *, as_json: bool) -> None:
    """List every key with its value and source, and every fault.

    Ends with status 2 if the service would not start.
    """
    paths = paths_of(files)
    with captured_log():
        reading = read_configuration(paths, os.environ)
        problems = list(reading.problems)
        if reading.settings is not None:
            problems = _faults_at_start(reading.settings)
    lines = _lines(reading)
    if as_json:
        _print_json(paths, reading, lines, problems)
    else:
        _print(Page(), paths, reading, lines, problems)
    if problems:
        sys.exit(FAULTY)


@config.command()
def schema() -> None:
    """Print the JSON Schema of app-config.yaml, for editors."""
    print_json(editor_schema())


def _faults_at_start(settings: Settings) -> list[str]:
    """Return the faults that end the service's start although every key is valid."""
    problems = []
    try:
        PluginKeys.existing(settings)
    except KeyStoreError as exc:
        problems.append(str(exc))
    try:
        check_installed(settings)
    except ConfigError as exc:
        problems += exc.problems
    return problems


def _lines(reading: Reading) -> list[Line]:
    # A key that an entry of a list leaves out has no default.
    shown_keys = (
        key
        for key in reading.keys
        if key.value is not None or not any(isinstance(part, int) for part in key.path)
    )
    return [_line(key, reading.tree) for key in shown_keys]


def _line(key: Key, tree: Tree) -> Line:
    is_set = key.value is not None
    value: Any = key.value if is_set else key.schema.get("default")
    secret = bool(key.schema.get("writeOnly"))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if secret and is_set and not (isinstance(value, str) and value.startswith("redis")):
        value = MASK
    else:
        value = _masked(value)
    origins = tuple(tree.origins_of(key.path)) if is_set else ()
    filled = deepest(key.path, tree.filled) if is_set else None
    usual = key.schema.get("usual") if value is None else None
    return Line(redact(dotted(key.path)), value, usual, secret, origins, filled)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {redact(str(key)): _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def _variables() -> list[str]:
    return sorted(
        name for name, text in os.environ.items() if name.startswith("APP_CONFIG_") and text
    )


def _print_json(
    paths: Sequence[Path], reading: Reading, lines: Sequence[Line], problems: Sequence[str]
) -> None:
    print_json(
        {
            "ok": not problems,
            "files": [str(path.absolute()) for path in paths],
            "variables": _variables(),
            "settings": [line.as_json() for line in lines],
            "problems": list(problems),
            "warnings": list(reading.warnings),
            "unread": [
                {"key": redact(dotted(stray.path)), "meant": stray.meant}
                for stray in reading.strays
            ],
        }
    )


def _print(
    page: Page,
    paths: Sequence[Path],
    reading: Reading,
    lines: Sequence[Line],
    problems: Sequence[str],
) -> None:
    page.line("Files, later ones win:", "bold")
    for path in paths:
        page.line(str(path.absolute()), indent=2)
    for name in _variables():
        page.line(f"{redact(name)} (environment)", indent=2)
    # All sections have the same column widths; longer texts are wrapped.
    longest = [max(len(_cells(line)[column][0]) for line in lines) for column in range(3)]
    first = min(longest[0], NAME)
    value = min(longest[1], (page.width - first - 6) * 3 // 5)
    for section, members in _sections(lines):
        page.heading(section)
        rows = [_cells(line) for line in members]
        page.rows(rows, widths=(first, value, min(longest[2], page.width - first - value - 6)))
    known = {line.partition(":")[0] for line in reading.warnings}
    unread = [redact(dotted(stray.path)) for stray in reading.strays]
    for title, items, style in (
        ("Not read by this service", [key for key in unread if key not in known], ""),
        ("Warnings", reading.warnings, "yellow"),
        ("Problems", problems, "bold red"),
    ):
        if items:
            page.heading(title)
            for item in items:
                page.line(item, style, indent=2)
    page.line()
    if problems:
        page.line(f"The configuration is faulty: {_count(len(problems), 'problem')}.", "bold red")
    else:
        told = f", with {_count(len(reading.warnings), 'warning')}" if reading.warnings else ""
        page.line(f"The configuration is fine{told}.", "green")


def _sections(lines: Sequence[Line]) -> list[tuple[str, list[Line]]]:
    """Return the lines of each parent key; configured keys come first."""
    sections: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: not line.is_set):
        sections.setdefault(line.key.rpartition(".")[0], []).append(line)
    return sorted(sections.items(), key=_place)


def _cells(line: Line) -> Row:
    """Return name, value and source, each with its style."""
    value = line.usual or ("not set" if line.value is None else printable(line.value))
    origin = line.origin if line.usual or line.value is not None else ""
    style = "" if line.is_set else "dim"
    return (line.key.rpartition(".")[2], style), (value, style), (origin, "dim")


def _place(section: tuple[str, list[Line]]) -> tuple[bool, str]:
    """Return the sort key: ``litellm`` first, then by name, with numbers by their size."""
    name = section[0]
    return not name.startswith("litellm"), re.sub(r"\d+", lambda digits: digits[0].zfill(6), name)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
