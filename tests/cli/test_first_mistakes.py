"""Mistakes that people make at first, and what the commands print about each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from litellm_plugin.cli import main
from litellm_plugin.server.access_log import Logger
from tests.cli.installation import Installation

ROOT = Path(__file__).parents[2]


def words(installation: Installation, *arguments: str, status: int, **options: Any) -> str:
    """Run a command, and return what it prints as one line."""
    result = installation.run(*arguments, **options)
    assert result.exit_code == status
    return " ".join(result.output.split())


# The key that is written wrongly, its value, the exit status, and what doctor prints.
IN_THE_CONFIGURATION: dict[str, tuple[str, Any, int, tuple[str, ...]]] = {
    "a key is misspelt, and the configuration is faulty besides": (
        "litellm",
        {"baseURL": "http://litellm:4000", "masterKey": "x", "provisoning": {}},
        2,
        ("litellm.baseUrl: missing", "did you mean provisioning?"),
    ),
    "the variable of the master key is not set": (
        "litellm.masterKey",
        "${THE_MASTER_KEY}",
        2,
        ("litellm.masterKey: missing (THE_MASTER_KEY is not set)",),
    ),
    "the variable of an optional key is not set": (
        "litellm.userIdDomain",
        "${A_DOMAIN}",
        0,
        ("litellm.userIdDomain: left out, as A_DOMAIN is not set",),
    ),
    "a credential of systemd outside of the unit": (
        "litellm.masterKey",
        {"$file": "${CREDENTIALS_DIRECTORY}/master-key"},
        2,
        ("CREDENTIALS_DIRECTORY is not set", "run doctor by systemd-run"),
    ),
}


@pytest.mark.parametrize("mistake", IN_THE_CONFIGURATION)
def test_doctor_says_what_is_written_wrongly(installation: Installation, mistake: str) -> None:
    path, value, status, printed = IN_THE_CONFIGURATION[mistake]
    installation.set(path, value)
    page = words(installation, "doctor", status=status)
    for text in printed:
        assert text in page


def test_no_file_and_no_variable(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (empty := tmp_path / "empty").mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("LITELLM_PLUGIN_CONFIG", raising=False)
    result = CliRunner().invoke(main, ["doctor"])
    page = " ".join(result.output.split())
    assert result.exit_code == 2
    assert "app-config.yaml: does not exist" in page
    assert "LITELLM_PLUGIN_CONFIG is not set, so app-config.yaml of the working directory" in page
    assert installation.litellm.asked == []


def test_a_state_folder_that_can_t_be_written(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = installation.folder / "read-only"
    folder.mkdir()
    installation.set("litellm.service.keyFile", str(folder / "deeper" / "key.json"))
    access = os.access  # which root passes everywhere
    monkeypatch.setattr("os.access", lambda path, mode: path != folder and access(path, mode))
    found = installation.doctor()["plugin-key"]
    assert found["status"] == "failed"
    assert f"this user can't write to {folder}." in found["found"]
    assert "litellm.service.keyFile or XDG_STATE_HOME" in found["remedy"]


def test_the_port_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(
        "gunicorn.glogging.Logger.error", lambda _self, text, *rest: told.append(text % rest)
    )
    Logger.error(Logger.__new__(Logger), "Can't connect to %s", "('127.0.0.1', 5000)")
    (line,) = told
    assert line.startswith("Can't connect to ('127.0.0.1', 5000): set LITELLM_PLUGIN_BIND")


def test_the_documented_doctor_beside_the_unit_has_the_unit_s_properties() -> None:
    unit = (ROOT / "deploy/systemd/litellm-plugin.service").read_text().splitlines()
    page = (ROOT / "docs/command-line.md").read_text()
    command = page[page.index("systemd-run ") : page.index("/bin/litellm-plugin doctor\n```")]
    given = {
        word.partition("=")[2]
        if word.startswith("--property=")
        else word.replace("--setenv=", "Environment=")
        for word in command.split()
        if word.startswith(("--property=", "--setenv="))
    }
    # A transient unit of the same user name has the same dynamic user.
    assert given - {"User=litellm-plugin"} <= set(unit)
    assert {
        line for line in unit if line.startswith(("DynamicUser", "LoadCred", "StateDir"))
    } <= given


def test_a_tab_in_the_configuration(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "tab.yaml"
    file.write_text("litellm:\n\tmasterKey: x\n")
    printed = words(installation, "config", "check", "--config", str(file), status=2)
    assert "tab.yaml: line 2, column 1: a tab; write spaces" in printed
    assert printed.index("Problems") < printed.index("(defaults)")
