"""The table of threats names tests that there are, and all of those there are here."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "security.md"

# What has to be in it, by words of the row.
THREATS = (
    "`alg: none`",
    "confusion",
    "`crit`",
    "`kid`",
    "`jku`, `x5u`",
    "Huge, deep",
    "nested",
    "wrong `typ`",
    "lists of audiences",
    "Forged `obo`",
    "token of another plugin",
    "Replay after expiry",
    "Header smuggling",
    "Duplicated headers",
    "`%2F`, `..`, `;`, NUL, overlong",
    "Duplicate keys, NaN, 1e999",
    "Depth, 10^6 keys",
    "lone surrogates",
    "Parameter pollution",
    "Mass assignment",
    "IDOR on every id in every route",
    "SSRF through configuration",
    "SSRF through ids",
    "Open redirect",
    "Log injection",
    "CORS",
    "Clickjacking",
    "Timing of the static token",
    "CPU",
    "Memory",
)


def _rows() -> list[tuple[str, str, list[str]]]:
    rows = []
    for line in DOCUMENT.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[1]:
            rows.append((cells[0], cells[1], re.findall(r"`([\w/]+\.py::[\w:]+)`", cells[2])))
    return rows[1:]


@functools.cache
def _tests(file: Path) -> set[str]:
    tests = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            tests.add(node.name)
        elif isinstance(node, ast.ClassDef):
            functions = (each for each in node.body if isinstance(each, ast.FunctionDef))
            tests |= {f"{node.name}::{each.name}" for each in functions}
    return {name for name in tests if name.rpartition("::")[2].startswith("test_")}


def test_every_threat_has_a_test_that_there_is() -> None:
    rows = _rows()
    assert len(rows) > 35
    for threat, met, tests in rows:
        assert met, threat
        assert tests, threat
        for test in tests:
            file, _, name = test.partition("::")
            assert name in _tests(TESTS / file), test


def test_no_threat_is_missing() -> None:
    threats = " ".join(threat for threat, _, _ in _rows())
    assert [threat for threat in THREATS if threat not in threats] == []


def test_each_file_of_attacks_is_named() -> None:
    named = {test.partition("::")[0] for _, _, tests in _rows() for test in tests}
    here = {f"security/{file.name}" for file in TESTS.glob("security/test_*.py")}
    assert here - {f"security/{Path(__file__).name}"} <= named
