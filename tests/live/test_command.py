"""The ``litellm-plugin`` command beside a real deployment."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.live.kinds import Told
from tests.live.rigs import REPO, BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.postgres import OWNER, PASSWORD, Postgres


class Command:
    """Runs the command with the service's own environment."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def json(
        self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the exit status, and what it printed for machines."""
        done = subprocess.run(
            [sys.executable, "-m", "litellm_plugin", *arguments, "--json"],
            cwd=REPO,
            env={**self._service.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def command(service: Service, backstage: BackstageRig) -> Command:
    return Command(service)


def _status(told: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["status"] for check in told["checks"]}


def test_the_doctor_finds_what_is_wrong_and_nothing_else(command: Command, told: Told) -> None:
    status, found = command.json("doctor")
    # The rig's catalog has two bobs, in two namespaces.
    assert _status(found) == dict.fromkeys(_status(found), "ok") | {
        # and its configuration names an access group that no MCP server of LiteLLM is in.
        "user-ids": "failed",
        "objects": "warning",
        "ingress": "skipped",
        "group-sync": "skipped",
        "offboarding": "skipped",
        "notifications": "skipped",
        "shared-cache": "skipped",
        "store": "skipped",
        "replicas": "skipped",
    }
    assert status == 1
    version = next(check for check in found["checks"] if check["id"] == "litellm-version")
    told(f"doctor sees LiteLLM {version['found']}")


def test_the_doctor_checks_what_is_switched_on(command: Command, postgres: Postgres) -> None:
    at = {"host": "127.0.0.1", "port": postgres.port, "user": OWNER, "password": PASSWORD}
    wanted = {
        "litellm_provisioning_sync_enabled": "true",
        "litellm_offboarding_enabled": "true",
        "litellm_notifications_enabled": "true",
        "litellm_audit_store": "true",
        "backend_database": json.dumps({"client": "pg", "prefix": "doctor_", "connection": at}),
    }
    env = {f"APP_CONFIG_{name}": value for name, value in wanted.items()}
    assert command.json("sync", "--dry-run", env=env)[0] == 0  # makes the tables
    status = _status(command.json("doctor", env=env)[1])
    for check in ("group-sync", "offboarding", "notifications", "store", "replicas"):
        assert (check, status[check]) == (check, "ok")


@pytest.mark.parametrize(
    ("variable", "value", "check"),
    [
        ("LITELLM_MASTER_KEY", "sk-not-the-master-key", "master-key"),
        ("LITELLM_BASE_URL", f"{LiteLLMRig.url}/v1", "litellm"),
        ("APP_CONFIG_backend_baseUrl", LiteLLMRig.url, "backstage"),
        ("APP_CONFIG_litellm_service_backstageToken", "nobody-knows-it", "catalog-token"),
        ("APP_CONFIG_litellm_audit_group", "group:default/litellm-admin", "groups"),
        ("APP_CONFIG_litellm_provisioning_defaults_teams", '["team-nobody"]', "teams"),
    ],
)
def test_the_doctor_names_the_cause(
    command: Command, variable: str, value: str, check: str
) -> None:
    status, found = command.json("doctor", env={variable: value})
    failed = {name for name, status in _status(found).items() if status == "failed"}
    assert failed - {"user-ids"} == {check}
    assert status == 1


def test_a_token_is_read_as_the_service_reads_it(command: Command, backstage: BackstageRig) -> None:
    status, told = command.json("token", stdin=backstage.sign_in("alice"))
    assert (status, told["who"]) == (0, "user:default/alice")
    status, told = command.json("token", stdin=backstage.plugin_token("alice"))
    assert told["who"] == "user:default/alice, through plugin:rig"
    status, told = command.json("token", stdin=backstage.forged("user", '{"exp":"-200"}'))
    assert (status, told["refusal"]) == (1, "It expired 3 minutes ago.")
    status, told = command.json("token", stdin=backstage.plugin_token(target="catalog"))
    assert told["refusal"] == "It is for the plugin catalog, and this service is litellm."


def test_whoami_tells_a_first_visit_and_makes_none(command: Command, litellm: LiteLLMRig) -> None:
    status, told = command.json("whoami", "user:contractors/heidi")
    assert status == 0
    assert told["role"] == "group:default/ai-power-users"
    assert told["first_visit"]["user"]["user_id"] == "heidi@example.com"
    assert litellm.user("heidi@example.com") is None


def test_the_configuration_is_read_as_the_service_reads_it(command: Command) -> None:
    status, told = command.json("config", "check")
    assert status == 0
    key = next(line for line in told["settings"] if line["key"] == "litellm.masterKey")
    assert (key["value"], key["by"]) == ("********", "${LITELLM_MASTER_KEY}")
