"""``config check``: what was read, from where, and what is wrong with it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from litellm_plugin.cli.terminal import (
    FAULTY,
    MASK,
    Page,
    configured,
    for_machines,
    logged,
    paths_of,
    print_json,
    shown,
)
from litellm_plugin.config import ConfigError, Reading, read_configuration
from litellm_plugin.config.report import deepest, dotted
from litellm_plugin.config.schema import Key, editor_schema
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.sources import Tree
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys
from litellm_plugin.plugin import check_installed
from litellm_plugin.redaction import redact

NAME = 26  # characters of a key's last part; only one is longer


@click.group()
def config() -> None:
    """The configuration."""


@dataclass(frozen=True, slots=True)
class Line:
    """One key, as it is told.

    Attributes:
        key: Such as ``litellm.baseUrl``.
        value: What counts; a secret is masked.
        origins: The files it was written in, the last one winning; ``env`` for ``APP_CONFIG_*``.
        filled: The variable or file that its text is from, if any.
    """

    key: str
    value: Any
    secret: bool
    origins: tuple[str, ...]
    filled: str | None

    @property
    def is_set(self) -> bool:
        """Whether it is configured, and not a default."""
        return bool(self.origins)

    @property
    def origin(self) -> str:
        """Where the value is from, in words."""
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
@configured
@for_machines
def check(files: Sequence[Path], *, as_json: bool) -> None:
    """Tell what is read, from where, and every fault in it.

    Ends with status 2 if the service would refuse to start.
    """
    paths = paths_of(files)
    with logged():
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
    """Return what ends the start of the service although every key is well."""
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
    # What an entry of a list leaves out has no default of its own.
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
    return Line(redact(dotted(key.path)), value, secret, origins, filled)


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {redact(str(key)): _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return shown(value) if isinstance(value, str) else value


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
    page.line("Read, later ones win:", "bold")
    for path in paths:
        page.line(str(path.absolute()), indent=2)
    for name in _variables():
        page.line(f"{redact(name)} of the environment", indent=2)
    sections = list(_sections(lines))
    # The same columns in all sections; what is longer is folded.
    cells = [row for _, rows in sections for row in rows]
    longest = [max(len(row[column][0]) for row in cells) for column in range(3)]
    first = min(longest[0], NAME)
    value = min(longest[1], (page.width - first - 6) * 3 // 5)
    for section, rows in sections:
        page.heading(section)
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


def _sections(
    lines: Sequence[Line],
) -> Iterator[tuple[str, list[tuple[tuple[str, str], ...]]]]:
    """Yield the lines by the key above them; what is set comes first in each."""
    sections: dict[str, list[Line]] = {}
    for line in lines:
        sections.setdefault(line.key.rpartition(".")[0], []).append(line)
    for section, members in sorted(sections.items(), key=_place):
        members.sort(key=lambda line: not line.is_set)
        yield (
            section,
            [
                (
                    (line.key.rpartition(".")[2], "" if line.is_set else "dim"),
                    ("not set" if line.value is None else shown(line.value), _style(line)),
                    (line.origin if line.is_set or line.value is not None else "", "dim"),
                )
                for line in members
            ],
        )


def _place(section: tuple[str, list[Line]]) -> tuple[bool, str]:
    """Order our own keys first, then by name, with numbers by their size."""
    name = section[0]
    return not name.startswith("litellm"), re.sub(r"\d+", lambda digits: digits[0].zfill(6), name)


def _style(line: Line) -> str:
    return "" if line.is_set else "dim"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")
