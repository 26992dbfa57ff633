"""``config check`` lists keys, values, sources and faults; ``config schema`` prints a schema."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from litellm_plugin.cli.terminal import (
    FAULTY,
    MASK,
    Page,
    Row,
    config_option,
    counted,
    json_option,
    paths_of,
    print_json,
    printable,
    show,
)
from litellm_plugin.config import ConfigError, Reading, read_configuration
from litellm_plugin.config.report import deepest, dotted
from litellm_plugin.config.schema import Key, editor_schema
from litellm_plugin.config.settings import Settings
from litellm_plugin.config.sources import Tree
from litellm_plugin.identity.signing import KeyStoreError, PluginKeys
from litellm_plugin.plugin import check_installed
from litellm_plugin.redaction import redact, safe_line

Line = dict[str, Any]  # a key, its value and its source, as documented for --json

NAME = 26  # width of the column of names; only one name is longer


@click.group()
def config() -> None:
    """Check the configuration, or print its JSON Schema."""


@config.command()
@config_option
@json_option
def check(files: Sequence[Path], *, as_json: bool) -> None:
    """List every key with its value and source, and every fault.

    Ends with status 2 if the service would not start.
    """
    paths = paths_of(files)
    reading = read_configuration(paths, os.environ)
    problems = list(reading.problems)
    if reading.settings is not None:
        problems = _faults_at_start(reading.settings)
    usual = {dotted(key.path): key.schema["usual"] for key in reading.keys if "usual" in key.schema}
    found = _found(paths, reading, problems)
    show(found, lambda page, found: _print(page, found, usual), as_json=as_json)
    if problems:
        sys.exit(FAULTY)


@config.command()
def schema() -> None:
    """Print the JSON Schema of app-config.yaml, for editors."""
    print_json(editor_schema())


def _faults_at_start(settings: Settings) -> list[str]:
    """Return the faults that make the start fail although every key is valid."""
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


def _line(key: Key, tree: Tree) -> Line:
    is_set, secret = key.value is not None, bool(key.schema.get("writeOnly"))
    value: Any = key.value if is_set else key.schema.get("default")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_url = isinstance(value, str) and re.match("(redis|rediss|postgres|postgresql)://", value)
    if secret and is_set and not is_url:
        value = MASK
    return {
        "key": safe_line(dotted(key.path)),
        "value": _masked(value),
        "secret": secret,
        "default": not is_set,
        "from": tree.origins_of(key.path) if is_set else [],
        "by": deepest(key.path, tree.filled) if is_set else None,
    }


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {redact(str(key)): _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def _found(paths: Sequence[Path], reading: Reading, problems: Sequence[str]) -> dict[str, Any]:
    variables = [
        name for name, text in os.environ.items() if name.startswith("APP_CONFIG_") and text
    ]
    return {
        "ok": not problems,
        "files": [str(path.absolute()) for path in paths],
        "variables": sorted(variables),
        "settings": [
            _line(key, reading.tree)
            for key in reading.keys
            # A key that an entry of a list leaves out has no default.
            if key.value is not None or not any(isinstance(part, int) for part in key.path)
        ],
        "problems": problems,
        "warnings": reading.warnings,
        "unread": [
            {"key": safe_line(dotted(stray.path)), "meant": stray.meant} for stray in reading.strays
        ],
    }


def _print(page: Page, found: dict[str, Any], usual: Mapping[str, str]) -> None:
    page.line("Files, later ones win:", "bold")
    for path in found["files"]:
        page.line(path, indent=2)
    for name in found["variables"]:
        page.line(f"{safe_line(name)} (environment)", indent=2)
    known = {line.partition(":")[0] for line in found["warnings"]}
    unread = [stray["key"] for stray in found["unread"]]
    for title, items, style in (
        ("Problems", found["problems"], "bold red"),
        ("Warnings", found["warnings"], "yellow"),
        ("Not read by this service", [key for key in unread if key not in known], ""),
    ):
        if items:
            page.heading(title)
            for item in items:
                page.line(item, style, indent=2)
    rows = {line["key"]: _row(line, usual.get(line["key"])) for line in found["settings"]}
    # All sections have the same column widths; longer texts are wrapped.
    longest = [max(len(row[column][0]) for row in rows.values()) for column in range(3)]
    first = min(longest[0], NAME)
    value = min(longest[1], (page.width - first - 6) * 3 // 5)
    widths = (first, value, min(longest[2], page.width - first - value - 6))
    for default in (False, True):
        lines = [line for line in found["settings"] if line["default"] is default]
        for section, keys in _sections(lines):
            page.heading(f"{section} (defaults)" if default else section)
            page.rows([rows[key] for key in keys], widths=widths)
    page.line()
    if problems := found["problems"]:
        page.line(f"The configuration is faulty: {counted(len(problems), 'problem')}.", "bold red")
    else:
        count = len(found["warnings"])
        added = f", with {counted(count, 'warning')}" if count else ""
        page.line(f"The configuration is fine{added}.", "green")


def _sections(lines: Sequence[Line]) -> list[tuple[str, list[str]]]:
    """Return the keys of each parent key; ``litellm`` comes first."""
    sections: dict[str, list[str]] = {}
    for line in lines:
        sections.setdefault(line["key"].rpartition(".")[0], []).append(line["key"])
    return sorted(
        sections.items(),
        key=lambda section: (
            not section[0].startswith("litellm"),
            re.sub(r"\d+", lambda digits: digits[0].zfill(6), section[0]),
        ),
    )


def _row(line: Line, usual: str | None) -> Row:
    """Return name, value and source, each with its style."""
    style = "dim" if line["default"] else ""
    origin = ", ".join([*line["from"], *filter(None, [line["by"]])]) or "default"
    text = printable(line["value"])
    if line["value"] is None:
        text, origin = (usual, origin) if usual else ("not set", "")
    return (line["key"].rpartition(".")[2], style), (text, style), (origin, "dim")
