"""What is installed for the demo; tests/browser looks at its page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo"


def test_the_lock_holds_every_package_with_its_hash_and_names_no_registry() -> None:
    text = (DEMO / "package-lock.json").read_text("utf-8")
    packages = json.loads(text)["packages"]
    assert (
        packages.pop("")["dependencies"]
        == json.loads((DEMO / "package.json").read_text())["dependencies"]
    )
    assert [name for name, package in packages.items() if "integrity" not in package] == []
    assert '"resolved"' not in text


def test_the_versions_are_exact() -> None:
    dependencies = json.loads((DEMO / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in dependencies.values())


@pytest.mark.deep
def test_it_asks_for_node(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None
    # -B: as if it had never been built. No program but the shell's own is found.
    done = subprocess.run(
        [make, "-B", "demo/dist/index.html"],
        cwd=DEMO.parent,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("The demo needs Node 20 or later, with npm")
