"""Writes the tables of ``configuration.md`` from ``app-config.yaml``, which documents every key.

``make docs`` runs it. The loader and ``app-config.yaml`` are held together by
``tests/config/test_app_config.py``, the page and both by ``tests/test_docs.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "app-config.yaml"
PAGE = Path(__file__).with_name("configuration.md")

_LINE = re.compile(
    r"(?P<indent> *)(?P<item>- )?(?P<key>[A-Za-z]+):(?: (?P<value>.*?))?(?:  # (?P<comment>.+))?"
)
_COMMENT = re.compile(
    r"(?P<type>.+?), (?P<default>required.*?|no default|default.*?)(?:; (?P<meaning>.+))?"
)
_LITERAL = re.compile(r"true|false|\d+|\{\}|\[\]|[A-Z]+\d+")
_OFF = re.compile(r"^( *)#(?=\S)", re.MULTILINE)

MARK = (
    "<!-- From here on docs/configuration_page.py writes, from app-config.yaml: `make docs`. -->\n"
)

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
    """One key, as its line in ``app-config.yaml`` describes it."""

    path: str  # litellm.provisioning.roles[].group
    type: str
    default: str  # "" for none
    meaning: str
    example: str  # "" where the default says enough


@dataclass(frozen=True, slots=True)
class _Line:
    """A key, and what its line and the remark above it say."""

    path: str
    value: str  # "" where objects or lists of them follow
    comment: str
    remark: str


def keys(text: str) -> list[Key]:
    """Return every key that ``text`` documents, in its order, and objects it remarks on.

    Raises:
        ValueError: A line is not understood, or describes its key in no known way.
    """
    found: dict[str, Key] = {}
    for line in _lines(_OFF.sub(r"\1", text)):
        if line.path in found:
            continue
        if line.comment:
            found[line.path] = _key(line)
        elif line.remark:
            found[line.path] = Key(line.path, "", "", line.remark, "")
        elif line.value:
            raise ValueError(f"app-config.yaml says nothing about {line.path}")
    return list(found.values())


def _lines(text: str) -> Iterator[_Line]:
    places = [(-1, "")]  # indentation and path of the objects that the line is in
    remark: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            remark.clear()
            continue
        if line.lstrip().startswith("#"):
            remark.append(line.strip(" #"))
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"app-config.yaml, line {number}: not understood")
        indent = len(match["indent"])
        while places[-1][0] >= indent:
            places.pop()
        if match["item"]:
            places.append((indent, f"{places[-1][1]}[]"))
            indent += 2
        path = f"{places[-1][1]}.{match['key']}".lstrip(".")
        places.append((indent, path))
        yield _Line(path, match["value"] or "", match["comment"] or "", " ".join(remark))
        remark.clear()


def _key(line: _Line) -> Key:
    match = _COMMENT.fullmatch(line.comment)
    if match is None:
        raise ValueError(f"app-config.yaml: wanted 'type, default; meaning' for {line.path}")
    default, meaning = match["default"], match["meaning"] or ""
    example = f"`{line.value}`" if line.value else ""
    if default == "default":
        default, example = example, ""
    elif default == "no default":
        default = ""
    elif default.startswith("default "):
        default = default.removeprefix("default ")
        default = f"`{default}`" if _LITERAL.fullmatch(default) else default
        example = ""
    elif ":-" in line.value:  # the sandbox's own
        example = ""
    meaning = "; ".join(filter(None, (meaning, line.remark)))
    return Key(line.path, match["type"], default, meaning, example)


def tables(text: str) -> str:
    """Return the tables that describe every key in ``text``."""
    parts = []
    known = keys(text)
    shown: set[str] = set()
    sections = []
    for title, prefixes in reversed(_SECTIONS):
        rows = [
            key for key in known if f"{key.path}.".startswith(prefixes) and key.path not in shown
        ]
        shown |= {key.path for key in rows}
        sections.append((title, rows))
    for title, rows in reversed(sections):
        parts.append(f"## {title}\n\n| key | type | default | |\n|---|---|---|---|\n{_rows(rows)}")
    if missing := [key.path for key in known if key.path not in shown]:
        raise ValueError(f"no section for {', '.join(missing)}")
    return "\n".join(parts)


def _rows(rows: list[Key]) -> str:
    return "".join(
        f"| `{key.path}` | {key.type} | {key.default} | {_meaning(key)} |\n" for key in rows
    )


def _meaning(key: Key) -> str:
    example = f"for example {key.example}" if key.example else ""
    return "; ".join(filter(None, (key.meaning, example))).replace("|", "\\|")


if __name__ == "__main__":
    written, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(written + mark + tables(SOURCE.read_text(encoding="utf-8")), encoding="utf-8")
