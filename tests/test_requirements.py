"""What is locked, audited and licensed stays in step with what pyproject.toml asks for."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.audit import LOCKS, Report, main

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PROJECT["project"]["optional-dependencies"]
OWN = PROJECT["project"]["name"]


def _extra(name: str) -> list[str]:
    """Return what an extra asks for, with what the extras ask for that it names."""
    wanted = EXTRAS[name]
    own = (requirement for line in wanted if (requirement := Requirement(line)).name == OWN)
    return [*wanted, *(line for one in own for extra in one.extras for line in _extra(extra))]


DEPLOYED = [
    *PROJECT["project"]["dependencies"],
    *(line for extra in ("serve", "redis", "postgres") for line in EXTRAS[extra]),
]
WANTED = {
    "run": DEPLOYED,
    "dev": [*PROJECT["project"]["dependencies"], *_extra("dev")],
    "browser": PROJECT["dependency-groups"]["browser"],
    "deploy": PROJECT["dependency-groups"]["deploy"],
    "fuzz": PROJECT["dependency-groups"]["fuzz"],
    "build": PROJECT["build-system"]["requires"],
}


def _lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def _entries(name: str) -> list[str]:
    return re.split(r"\n(?=\w)", _lock(name).split("make lock\n", 1)[1])


def _pins(name: str) -> dict[str, set[str]]:
    """Return the versions of each package in a lock; several where Pythons differ."""
    pins: dict[str, set[str]] = {}
    for entry in _entries(name):
        requirement = Requirement(entry.split(" \\", 1)[0])
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        pins.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return pins


def _requirements(wanted: Iterable[str]) -> list[Requirement]:
    parsed = [Requirement(line) for line in wanted]
    return [requirement for requirement in parsed if requirement.name != OWN]


@pytest.mark.parametrize("name", WANTED)
def test_a_lock_satisfies_pyproject_and_holds_no_more(name: str) -> None:
    pins, requirements = _pins(name), _requirements(WANTED[name])
    for requirement in requirements:
        held = pins.get(canonicalize_name(requirement.name), set())
        assert any(requirement.specifier.contains(version, prereleases=True) for version in held), (
            f"requirements/{name}.txt does not hold {requirement}: run make lock"
        )
    direct = {
        entry.partition("==")[0]
        for entry in _entries(name)
        if "# via" not in entry or f"{OWN} (pyproject.toml" in entry
    }
    assert direct == {canonicalize_name(requirement.name) for requirement in requirements}


@pytest.mark.parametrize("name", WANTED)
def test_every_entry_of_a_lock_has_a_hash_and_names_no_registry(name: str) -> None:
    for entry in _entries(name):
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert not re.search(r"https?:|file:|--(extra-)?index-url|--find-links", _lock(name))


def test_every_lock_is_known_here() -> None:
    assert {lock.stem for lock in LOCKS} == set(WANTED)


def test_development_has_the_very_releases_that_are_deployed() -> None:
    development = _pins("dev")
    for package, versions in _pins("run").items():
        assert development[package] == versions, package


# Licences.


def _deployed() -> list[str]:
    return sorted(_pins("run"))


@pytest.mark.deep
def test_no_licence_is_deployed_but_those_that_pyproject_allows() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "piplicenses", "--packages", *_deployed()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Apache-2.0 OR BSD-3-Clause" in ran.stdout  # cryptography: it did look


def test_the_page_of_licences_names_what_is_deployed() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    rows = re.findall(r"^\| ([\w.-]+) ", page, re.MULTILINE)[1:]
    # What only other Pythons need is not installed where the page is made.
    conditional = {
        canonicalize_name(re.split("==", entry)[0])
        for entry in _entries("run")
        if " ; " in entry.splitlines()[0]
    }
    listed = {canonicalize_name(row) for row in rows}
    assert listed - conditional == set(_deployed()) - conditional
    assert listed <= set(_deployed())


# The audit.

FINE: dict[str, Any] = {"name": "flask", "version": "3.1.3", "vulns": []}
UNKNOWN = {"name": "flask", "skip_reason": "Dependency not found on PyPI"}
VULNERABLE = FINE | {"vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["3.1.4"]}]}


def _audit(*answers: Report | str) -> tuple[int, str]:
    """Return the exit status, and what is said, when the sources answer so, one after the other."""
    said: list[str] = []
    left = list(answers)
    status = main([], said.append, lambda _source, _arguments: left.pop(0))
    return status, "\n".join(said)


def test_an_audit_that_finds_nothing_says_how_many_it_looked_at() -> None:
    status, said = _audit({"dependencies": [FINE, FINE]})
    assert status == 0
    assert "2 packages" in said


def test_a_known_vulnerability_fails_and_is_named_though_others_could_not_be_looked_up() -> None:
    status, said = _audit({"dependencies": [UNKNOWN, VULNERABLE]})
    assert status == 1
    assert "flask 3.1.3: PYSEC-2026-1, mended in 3.1.4" in said


def test_the_next_source_is_asked_where_one_does_not_know_all() -> None:
    status, said = _audit({"dependencies": [FINE, UNKNOWN]}, {"dependencies": [FINE, FINE]})
    assert status == 0
    assert "no data on 1 of 2 packages" in said


@pytest.mark.parametrize("last", [{"dependencies": [UNKNOWN]}, "name resolution failed"])
def test_an_audit_without_data_is_neither_a_success_nor_a_finding(last: Report | str) -> None:
    status, said = _audit("connection refused", last)
    assert status == 75
    assert "connection refused" in said
    assert "NOT AUDITED" in said
