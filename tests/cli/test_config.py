"""``config check``: what was read, from where, and nothing that is secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from litellm_plugin.cli import main
from litellm_plugin.cli.terminal import MASK
from litellm_plugin.config import load_settings
from litellm_plugin.config.schema import editor_schema
from tests.config import example
from tests.config.conftest import write  # noqa: F401 - a fixture

FULL = {
    **example.ENVIRON,
    "LITELLM_MASTER_KEY": "sk-a-master-key",
    "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "EXTERNAL_SECRET": "ZXh0ZXJuYWw=",  # base64, as it stands in the file
    "BACKEND_SECRET": "YmFja2VuZA==",
}


def check(*paths: Path, environ: dict[str, str | None] | None = None) -> dict[str, Any]:
    result = CliRunner().invoke(main, _arguments(*paths, "--json"), env=environ)
    told: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if told["ok"] else 2)
    return told


def _arguments(*paths: Path | str) -> list[str]:
    options = [f"--config={path}" if isinstance(path, Path) else path for path in paths]
    return ["config", "check", *options]


def setting(told: dict[str, Any], key: str) -> dict[str, Any]:
    return next(dict(line) for line in told["settings"] if line["key"] == key)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    base, over = tmp_path / "base.yaml", tmp_path / "over.yaml"
    base.write_text(
        "backend: {baseUrl: 'http://backstage:7007'}\n"
        "litellm:\n"
        "  baseUrl: http://litellm:4000\n"
        "  masterKey: ${MASTER}\n"
        "  provisioning: {defaults: {metadata: {a: 1}}}\n"
    )
    over.write_text(
        "litellm:\n"
        "  baseUrl: http://${HOST:-other}:4000\n"
        "  provisioning: {defaults: {metadata: {b: 2}}}\n"
    )
    monkeypatch.setenv("MASTER", "sk-the-master-key")
    return [base, over]


def test_every_value_has_its_origin(files: list[Path]) -> None:
    told = check(*files, environ={"APP_CONFIG_litellm_userIdDomain": "example.com"})
    assert told["files"] == [str(path) for path in files]
    assert told["variables"] == ["APP_CONFIG_litellm_userIdDomain"]
    assert setting(told, "litellm.baseUrl") == {
        "key": "litellm.baseUrl",
        "value": "http://other:4000",
        "secret": False,
        "default": False,
        "from": ["over.yaml"],
        "by": "default of ${HOST}",
    }
    assert setting(told, "litellm.userIdDomain")["from"] == ["env"]
    assert setting(told, "litellm.userIdDomain")["by"] == "APP_CONFIG_litellm_userIdDomain"
    metadata = setting(told, "litellm.provisioning.defaults.metadata")
    assert metadata["value"] == {"a": 1, "b": 2}
    assert metadata["from"] == ["base.yaml", "over.yaml"]


def test_a_secret_does_not_even_show_its_length(files: list[Path]) -> None:
    told = check(*files)
    assert setting(told, "litellm.masterKey")["value"] == MASK
    assert setting(told, "litellm.masterKey")["by"] == "${MASTER}"
    assert len(MASK) != len("sk-the-master-key")


@pytest.mark.parametrize("secret", ["redis-of-tests", "postgres"])
def test_a_secret_that_begins_like_a_url_is_not_shown(files: list[Path], secret: str) -> None:
    files[1].write_text(f"litellm: {{masterKey: {secret}}}")
    assert setting(check(*files), "litellm.masterKey")["value"] == MASK


def test_defaults_are_told_as_such(files: list[Path]) -> None:
    told = check(*files)
    budget = setting(told, "litellm.provisioning.defaults.maxBudget")
    assert budget["default"] is True
    assert budget["value"] == 10
    assert setting(told, "litellm.service.timeouts.connect")["value"] == 5
    assert setting(told, "litellm.teamAdmin.objectPermissions.enabled")["value"] is False
    assert setting(told, "permission.enabled")["value"] is False


def test_faults_are_all_told_and_end_it_with_2(files: list[Path]) -> None:
    files[1].write_text("litellm: {masterKey: null, service: {pluginID: a}, bridge: {enabled: x}}")
    told = check(*files)
    assert told["problems"] == [
        "litellm.masterKey: missing (null in over.yaml)",
        'litellm.bridge.enabled: got "x" in over.yaml, wanted boolean',
        "litellm.service.pluginID: no such key; did you mean pluginId?",
    ]
    assert told["unread"] == [{"key": "litellm.service.pluginID", "meant": "pluginId"}]


def test_what_ends_the_start_only_later_is_a_fault_too(files: list[Path], tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text("no key")
    files[1].write_text(f"litellm: {{service: {{keyFile: {key}}}}}")
    key.chmod(0o600)
    (problem,) = check(*files)["problems"]
    assert "holds no plugin key" in problem


def test_it_makes_no_key(files: list[Path], tmp_path: Path) -> None:
    check(*files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base.yaml", "over.yaml"]


def test_odd_keys_are_told(files: list[Path]) -> None:
    files[1].write_text("litellm: {masterkey: x, frontendOnly: 1, audit: {group: admins}}")
    told = check(*files)
    assert told["ok"] is True
    assert [line["key"] for line in told["unread"]] == [
        "litellm.masterkey",
        "litellm.frontendOnly",
    ]
    assert len(told["warnings"]) == 2
    page = CliRunner().invoke(main, _arguments(*files)).stdout
    assert "Not read by this service\n  litellm.frontendOnly\n" in page
    assert "The configuration is fine, with 2 warnings." in page


def _secrets(settings: Any) -> set[str]:
    """Return every value of the settings that their repr leaves out."""
    found: set[str] = set()
    for name, field in getattr(settings, "__dataclass_fields__", {}).items():
        value = getattr(settings, name)
        if not field.repr and value is not None:
            found.add(value.decode() if isinstance(value, bytes) else value)
        for inner in value if isinstance(value, tuple) else (value,):
            found |= _secrets(inner)
    return found


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_nothing_secret_is_shown_of_a_full_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").mkdir()
    for name in example.FILES:
        (tmp_path / name).write_text("")
    path = tmp_path / "app-config.yaml"
    text = example.everything_on().replace("store: memory", "store: redis")
    path.write_text(text)
    settings = load_settings([path], FULL)
    hidden = _secrets(settings) - {settings.cache.connection}
    assert len(hidden) == 7
    result = CliRunner().invoke(main, _arguments(path, *form), env={**FULL, "COLUMNS": "200"})
    assert f"redis://{MASK}@redis.internal:6379/0" in result.stdout
    for secret in (hidden - {"external", "backend"}) | {*FULL.values(), ":password@"}:
        assert secret not in result.stdout


def test_the_schema_for_editors_is_printed() -> None:
    result = CliRunner().invoke(main, ["config", "schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout) == editor_schema()


def test_values_are_taken_literally(files: list[Path]) -> None:
    files[1].write_text(
        'litellm: {opencode: {metadata: {a: "[red]x[/] \\e]0;title\\a", b: sk-0123456789abc}}}'
    )
    page = CliRunner().invoke(main, _arguments(*files)).stdout
    assert "[red]x[/]" in page
    assert "\x1b" not in page
    assert "sk-0123456789abc" not in page


def test_colours_are_for_terminals_that_want_them(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" in CliRunner().invoke(main, _arguments(*files), color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in CliRunner().invoke(main, _arguments(*files), color=True).stdout
