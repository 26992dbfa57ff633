"""The command as it is installed: by its own name, as a module, and below ``flask``."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

from litellm_plugin import __version__
from litellm_plugin.cli import COMMANDS, main

BIN = Path(sys.executable).parent


def test_every_command_has_help() -> None:
    assert sorted(COMMANDS) == list(COMMANDS)
    listed = CliRunner().invoke(main, ["--help"]).stdout
    for path in ([], ["config"], ["config", "check"], *([name] for name in COMMANDS)):
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
    for name in COMMANDS:
        assert f"\n  {name} " in listed


def test_it_tells_its_version() -> None:
    assert __version__ in CliRunner().invoke(main, ["--version"]).stdout


@pytest.mark.parametrize("group", ["console_scripts", "flask.commands"])
def test_it_is_an_entry_point(group: str) -> None:
    (point,) = (
        each for each in entry_points(group=group) if each.value == "litellm_plugin.cli:main"
    )
    assert point.load() is main


@pytest.mark.deep
def test_below_flask_it_works_where_the_configuration_is_faulty(tmp_path: Path) -> None:
    (tmp_path / "app-config.yaml").write_text("litellm: {}")
    done = subprocess.run(
        [BIN / "flask", "litellm", "config", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "litellm.baseUrl: missing" in done.stdout
