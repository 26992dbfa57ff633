"""Writes the tables of ``configuration.md``, and the comments of ``app-config.yaml``.

What a key may be, its default and its meaning are declared in the settings;
``app-config.yaml`` has an example of each. ``make docs`` runs it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litellm_plugin.config import yaml12
from litellm_plugin.config.schema import Node, forms, json_schema
from litellm_plugin.config.values import WORDS

SOURCE = Path(__file__).parents[1] / "app-config.yaml"
PAGE = Path(__file__).with_name("configuration.md")

_LINE = re.compile(
    r"(?P<start>(?P<indent> *)#?(?P<item>- )?(?P<key>[A-Za-z]+):(?: (?P<value>.*?))?)(?:  # .+)?"
)

MARK = "<!-- From here on docs/configuration_page.py writes: `make docs`. -->\n"

# Headings, and the keys below them; where several prefixes fit, the last section has it.
_SECTIONS = (
    ("LiteLLM", ("litellm.",)),
    ("Provisioning", ("litellm.provisioning.",)),
    ("Keys, teams and what is shown", ("litellm.keyGeneration.", "litellm.teamAdmin.",
     "litellm.display.", "litellm.audit.")),
    ("Tools on the user's machine", ("litellm.bridge.", "litellm.opencode.")),
    ("This service", ("litellm.service.",)),
    ("Backstage", ("backend.", "discovery.", "permission.")),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """What is declared of a key."""

    type: str  # "" for an object
    default: str  # "required", the value or its meaning in words; "" for none
    value: Any  # of the default
    meaning: str

    def comment(self, example: str) -> str:
        """Return what ``app-config.yaml`` says behind ``example``."""
        default = f"default {self.default}" if self.default else "no default"
        if self.default.startswith("required"):
            default = self.default
        elif self.default == _written(self.value) and yaml12.load(example) == self.value:
            default = "default"
        return "; ".join(filter(None, (f"{self.type}, {default}", self.meaning)))

    def row(self, path: str, example: str) -> str:
        """Return the row of the table."""
        is_value = self.value is not None and self.default == _written(self.value)
        default = f"`{self.default}`" if is_value else self.default
        if self.default not in {"", "required"} or ":-" in example:  # the sandbox's own
            example = ""
        shown = f"for example `{example}`" if example else ""
        meaning = "; ".join(filter(None, (self.meaning, shown))).replace("|", "\\|")
        return f"| `{path}` | {self.type} | {default} | {meaning} |\n"


def declared() -> dict[str, Key]:
    """Return every key that is declared, and what holds keys if there is something to say of it."""
    found: dict[str, Key] = {}
    for path, schema, required in _declared(json_schema(), "", required=False):
        kind, value = schema.get(WORDS, ""), schema.get("default")
        first = found.get(path)
        if first is None:
            default = "required" if required else schema.get("usual", _written(value))
            found[path] = Key(kind, default if kind else "", value, schema.get("description", ""))
        elif kind not in first.type:  # another form of it
            found[path] = replace(first, type=f"{first.type} or {kind}" if first.type else kind)
    return {path: key for path, key in found.items() if path and (key.type or key.meaning)}


def _declared(schema: Node, path: str, *, required: bool) -> Iterator[tuple[str, Node, bool]]:
    for form in forms(schema):
        yield path, form, required
        if WORDS in form:
            continue
        for name, inner in form.get("properties", {}).items():
            needed = name in form.get("required", ())
            yield from _declared(inner, f"{path}.{name}".lstrip("."), required=needed)
        if "items" in form:
            yield from _declared(form["items"], f"{path}[]", required=False)


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value).replace('"', "")


def commented(text: str) -> tuple[str, dict[str, str]]:
    """Return ``text`` with the comment of each key as it is declared, and the keys' values.

    Raises:
        ValueError: A line is not understood, or has a key that is not declared.
    """
    known, values = declared(), dict[str, str]()
    places = [(-1, "")]  # indentation and path of the objects that the line is in
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        lines.append(line)
        if match is None:
            if line.strip() and not line.lstrip().startswith("# ") and line.strip() != "#":
                raise ValueError(f"app-config.yaml, line {number}: not understood")
            continue
        indent = len(match["indent"])
        while places[-1][0] >= indent:
            places.pop()
        if match["item"]:
            places.append((indent, f"{places[-1][1]}[]"))
            indent += 2
        path = f"{places[-1][1]}.{match['key']}".lstrip(".")
        places.append((indent, path))
        if match["value"] and path not in values:
            if path not in known:
                raise ValueError(f"app-config.yaml, line {number}: {path} is not declared")
            values[path] = match["value"]
            lines[-1] = f"{match['start']}  # {known[path].comment(match['value'])}"
    return "\n".join(lines) + "\n", values


def tables(text: str) -> str:
    """Return the tables that describe every key, with the examples of ``text``."""
    _, examples = commented(text)
    sections = dict.fromkeys((title for title, _ in _SECTIONS), "")
    for path, key in declared().items():
        titles = [title for title, prefixes in _SECTIONS if f"{path}.".startswith(prefixes)]
        sections[titles[-1]] += key.row(path, examples.get(path, ""))
    return "\n".join(
        f"## {title}\n\n| key | type | default | |\n|---|---|---|---|\n{rows}"
        for title, rows in sections.items()
    )


if __name__ == "__main__":
    source = commented(SOURCE.read_text(encoding="utf-8"))[0]
    SOURCE.write_text(source, encoding="utf-8")
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(written + mark + tables(source), encoding="utf-8")
