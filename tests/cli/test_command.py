"""The command as it is installed: by its own name, as a module, and below ``flask``."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from litellm_plugin import __version__
from litellm_plugin.cli import COMMANDS, main
from litellm_plugin.cli.terminal import FAILED, FAULTY, print_json, stop
from litellm_plugin.config import ConfigError
from tests.cli.installation import Installation

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


def test_no_control_character_of_a_name_or_an_error_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "ci\x1b]0;title\x07\x7f\x9b2J"
    print_json([name])
    with pytest.raises(SystemExit):
        stop(f"LiteLLM says:\n{name}", FAILED)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == [name]
    assert printed.err == "LiteLLM says:\nci\\x1b]0;title\\x07\\x7f\\x9b2J\n"
    assert printed.out.replace("\n", "").isprintable()


def test_only_the_sandbox_logs_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    log, silenced = logging.getLogger("litellm_plugin"), list[bool]()
    before = list(log.handlers)

    def look(*_arguments: Any, **_options: Any) -> None:
        silenced.append(any(isinstance(each, logging.NullHandler) for each in log.handlers))
        raise ConfigError(["faulty"])

    monkeypatch.setattr("litellm_plugin.cli.sandbox.running", look)
    monkeypatch.setattr("litellm_plugin.cli.terminal.load_settings", look)
    for command in ("sandbox", "jobs"):
        assert CliRunner().invoke(main, [command]).exit_code == FAULTY
    assert silenced == [False, True]
    assert log.handlers == before


@pytest.mark.parametrize(
    "command", [("sync",), ("jobs",), ("whoami", "alice"), ("audit", "export", "--since", "1d")]
)
def test_a_package_that_the_configuration_needs_is_missing(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    installation.set("litellm.provisioning.sync", {"enabled": True})
    installation.set("backend.database", {"client": "pg", "connection": "postgresql://db"})
    monkeypatch.setitem(sys.modules, "litellm_plugin.store.postgres", None)
    result = installation.run(*command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "install litellm-plugin[postgres]" in result.stderr
