"""A service that can't serve ends at once, and says all that is wrong."""

from __future__ import annotations

from pathlib import Path

from tests.live.kinds import Deploy, Told

FAULTS = """\
    timeouts: {read: soon}
    keyfile: elsewhere.json
  provisioning: {defaults: {maxBudget: lots, teams: guests}}
  masterKey: [sk-secret-in-a-list]
"""


def test_every_fault_of_the_configuration_is_told_before_a_port_is_taken(
    deploy: Deploy, told: Told
) -> None:
    service = deploy("faulty", FAULTS, start=False)
    status = service.fail()
    assert status != 0
    for key in (
        "litellm.service.timeouts.read",
        "litellm.service.keyfile",
        "litellm.provisioning.defaults.maxBudget",
        "litellm.provisioning.defaults.teams",
        "litellm.masterKey",
    ):
        assert key in service.log
    assert "sk-secret-in-a-list" not in service.log
    assert "Traceback" not in service.log
    told(f"a faulty configuration ends gunicorn with status {status}:\n{service.log}")


def test_a_missing_master_key_is_named(deploy: Deploy) -> None:
    service = deploy("no-master-key", start=False, without=("LITELLM_MASTER_KEY",))
    assert service.fail() != 0
    assert "litellm.masterKey: missing" in service.log


def test_a_missing_file_is_named(deploy: Deploy, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.yaml"
    service = deploy("no-file", start=False, env={"LITELLM_PLUGIN_CONFIG": str(missing)})
    assert service.fail() != 0
    assert str(missing) in service.log


def test_a_key_that_others_could_read_is_not_used(deploy: Deploy, tmp_path: Path) -> None:
    key_file = tmp_path / "key.json"
    key_file.write_text("{}")
    key_file.chmod(0o644)
    env = {"APP_CONFIG_litellm_service_keyFile": str(key_file)}
    service = deploy("open-key", start=False, env=env)
    assert service.fail() != 0
    assert str(key_file) in service.log
