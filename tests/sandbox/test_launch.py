"""The sandbox as its user meets it: what it refuses, and what its printed commands do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from click.testing import CliRunner

import litellm_plugin.sandbox
from litellm_plugin.cli import main
from litellm_plugin.cli.sandbox import sandbox as sandbox_command
from litellm_plugin.cli.sandbox import welcome
from litellm_plugin.config import load_settings
from litellm_plugin.config.settings import Settings
from litellm_plugin.factory import create_app
from litellm_plugin.sandbox import people
from litellm_plugin.sandbox.launch import MASTER_KEY, Sandbox, SandboxRefusedError, running
from litellm_plugin.sandbox.litellm import LiteLLMStandIn
from tests.deployed import free_port

PACKAGE = Path(litellm_plugin.sandbox.__file__).parent
OWN_CONFIG = PACKAGE / "app-config.yaml"
REPOSITORY = PACKAGE.parents[1]
NOWHERE = {"LITELLM_BASE_URL": "http://127.0.0.1:0", "BACKSTAGE_URL": "http://127.0.0.1:0"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running([OWN_CONFIG], NOWHERE, port=0) as sandbox:
        yield sandbox


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  curl ")]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_printed_commands_work_one_after_the_other(sandbox: Sandbox) -> None:
    answers: list[Any] = []
    for command in commands(welcome(sandbox)):
        done = subprocess.run(
            [*command, "-w", "\n%{http_code}"], capture_output=True, text=True, check=True
        )
        body, _, status = done.stdout.rpartition("\n")
        answers.append((int(status), json.loads(body)))
    keys, generated, usage, teams, first_visit, team, audit, denied = answers
    assert [status for status, _ in answers] == [200] * 7 + [403]
    assert {key["key_alias"] for key in keys[1]} >= {"bob-laptop", "bob-lost", "bob-hackathon"}
    assert generated[1]["key"].startswith("sk-")
    assert len(usage[1]["daily_usage"]) == people.USAGE_DAYS
    assert usage[1]["total_spend"] > 1
    assert [team["team_id"] for team in teams[1]] == ["team-platform", "team-search"]
    assert first_visit[1]["user_id"] == "carol@example.com"
    assert (first_visit[1]["max_budget"], first_visit[1]["teams"]) == (100, ["team-power-users"])
    assert team[1]["metadata"]["owning_group"] == people.ADMINS
    assert audit[1]["audit_logs"][0]["object_id"] == team[1]["team_id"]
    assert isinstance(denied[1]["error"], str)


def test_it_tells_what_a_user_needs(sandbox: Sandbox) -> None:
    told = welcome(sandbox)
    assert told.splitlines()[0] == f"The sandbox is up: open {sandbox.page} in a browser."
    assert f"{sandbox.page}demo/ " in welcome(sandbox, with_demo=True).splitlines()[0]
    assert sandbox.url in told
    assert not any(token in told for token in sandbox.tokens.values())
    assert MASTER_KEY not in told
    assert len(commands(told)) == 8


def test_only_the_sandbox_has_pages(sandbox: Sandbox) -> None:
    page = requests.get(sandbox.page, timeout=10)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    service = create_app(sandbox.settings).test_client()
    for path in ("/", "/sandbox/page.js", "/docs/security.md", "/api/auth/sandbox/refresh"):
        assert service.get(path).status_code == 404


def test_a_demo_that_is_not_built_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(sandbox_command, ["--demo", str(tmp_path)])
    assert result.exit_code == 2
    assert "'make demo' builds it" in result.stderr


def test_the_doctor_finds_nothing_wrong_with_it(sandbox: Sandbox) -> None:
    environ = {**NOWHERE, "LITELLM_PLUGIN_CONFIG": ",".join(map(str, sandbox.config))}
    result = CliRunner().invoke(main, ["doctor", "--json"], env=environ)
    told = json.loads(result.stdout)
    assert [check for check in told["checks"] if check["status"] in {"failed", "warning"}] == []
    assert environ["LITELLM_PLUGIN_CONFIG"] in welcome(sandbox)


def test_files_with_tokens_are_for_their_user_only(sandbox: Sandbox) -> None:
    folders = {file.parent for file in sandbox.headers.values()}
    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700]


def test_the_service_believes_no_other_token(sandbox: Sandbox) -> None:
    forged = sandbox.tokens[people.BOB][:-8] + "AAAAAAAA"
    command = ["curl", "-sS", "-w", "%{http_code}", "-o", os.devnull]
    for header in ("Authorization: Bearer nonsense", f"Authorization: Bearer {forged}", "X-A: b"):
        done = subprocess.run(
            [*command, "-H", header, f"{sandbox.url}/keys"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "401"


def test_taken_ports_are_avoided(sandbox: Sandbox) -> None:
    taken = {
        "LITELLM_BASE_URL": sandbox.settings.base_url,
        "BACKSTAGE_URL": sandbox.settings.discovery.backstage_url,
    }
    with running([OWN_CONFIG], taken, port=0) as another:
        assert another.settings.base_url != sandbox.settings.base_url
        assert another.settings.discovery.backstage_url not in set(taken.values())


def config(folder: Path, **changed: Any) -> list[Path]:
    """Return the sandbox's configuration, with a file of changes to it."""
    file = folder / "changes.yaml"
    file.write_text(json.dumps(changed))
    return [OWN_CONFIG, file]


POSTGRES = {"client": "pg", "connection": "postgres://user@db.example.com"}


@pytest.mark.parametrize(
    "database",
    [
        {"client": "better-sqlite3", "connection": {"filename": "/var/lib/real.sqlite"}},
        {**POSTGRES, "pluginDivisionMode": "schema"},
        {**POSTGRES, "plugin": {"litellm": {"connection": {"database": "real"}}}},
    ],
)
def test_its_key_database_and_cache_are_not_the_users(
    tmp_path: Path, database: dict[str, Any]
) -> None:
    cache = {"store": "redis", "connection": "redis://redis.example.com"}
    files = config(tmp_path, backend={"database": database, "cache": cache})
    with running(files, NOWHERE, port=0) as sandbox:
        folder = next(iter(sandbox.headers.values())).parent
        # The second is what other commands read, such as audit export.
        for settings in (sandbox.settings, load_settings(sandbox.config, {})):
            assert settings.service.key_file == folder / "plugin-key.json"
            assert settings.database is not None
            assert settings.database.file == folder / "litellm.sqlite"
            assert settings.cache.connection is None


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"LITELLM_MASTER_KEY": "sk-real-2f9c"}, "LITELLM_MASTER_KEY is not the sandbox's own key"),
        ({"LITELLM_BASE_URL": "https://litellm.example.com"}, "LITELLM_BASE_URL has to be"),
        ({"LITELLM_BASE_URL": "http://10.0.0.1:4000"}, "LITELLM_BASE_URL has to be"),
        ({"LITELLM_BASE_URL": "http://127.0.0.1.example.com:4000"}, "LITELLM_BASE_URL has to be"),
        ({"LITELLM_BASE_URL": "http://127.0.0.1@example.com:80"}, "LITELLM_BASE_URL has to be"),
        ({"LITELLM_BASE_URL": "http://127.0.0.1:99999"}, "LITELLM_BASE_URL has to be"),
        ({"LITELLM_BASE_URL": "http://[::1"}, "LITELLM_BASE_URL has to be"),
        ({"BACKSTAGE_URL": "https://127.0.0.1:7010"}, "BACKSTAGE_URL has to be"),
        ({"BACKSTAGE_URL": "http://0.0.0.0:7010"}, "BACKSTAGE_URL has to be"),
        ({"BACKSTAGE_URL": "http://127.0.0.1:7010/backstage"}, "BACKSTAGE_URL has to be"),
    ],
)
def test_it_refuses_to_start_beside_something_real(environ: dict[str, str], said: str) -> None:
    arguments = ["--config", str(OWN_CONFIG), "--port", "0"]
    result = CliRunner().invoke(sandbox_command, arguments, env={**NOWHERE, **environ})
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert "2f9c" not in result.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"litellm": {"masterKey": "sk-real-2f9c"}}, "litellm.masterKey is not"),
        ({"litellm": {"baseUrl": "https://litellm.example.com"}}, "litellm.baseUrl has to be"),
        ({"backend": {"baseUrl": "https://backstage.example.com"}}, "backend.baseUrl has to be"),
        (
            {"discovery": {"endpoints": [{"target": "http://10.0.0.1/c", "plugins": ["catalog"]}]}},
            "leads 'catalog' away",
        ),
    ],
)
def test_a_real_configuration_is_refused(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with (
        pytest.raises(SandboxRefusedError, match=said) as refused,
        running(config(tmp_path, **changed), NOWHERE, port=0),
    ):
        pytest.fail("it started")
    assert "2f9c" not in str(refused.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"APP_CONFIG_litellm_service_keyFile": "/nowhere/real-2f9c.json"},
            "APP_CONFIG_* sets litellm.service.keyFile",
        ),
        ({"APP_CONFIG_litellm_audit_store": "false"}, "APP_CONFIG_* sets litellm.audit.store"),
        (
            {"APP_CONFIG_backend_database_plugin_litellm_connection": "/nowhere/real-2f9c.sqlite"},
            "APP_CONFIG_* sets backend.database",
        ),
        (
            {"APP_CONFIG_backend_cache": '{"store": "redis", "connection": "redis://real-2f9c"}'},
            "APP_CONFIG_* sets backend.cache",
        ),
    ],
)
def test_a_variable_that_replaces_its_own_state_is_refused(
    environ: dict[str, str], said: str
) -> None:
    with (
        pytest.raises(SandboxRefusedError, match=re.escape(said)) as refused,
        running([OWN_CONFIG], {**NOWHERE, **environ}, port=0),
    ):
        pytest.fail("it started")
    assert "2f9c" not in str(refused.value)


def test_a_fixed_address_that_is_taken_is_refused(tmp_path: Path, sandbox: Sandbox) -> None:
    fixed = config(tmp_path, litellm={"baseUrl": sandbox.settings.base_url})
    refused = pytest.raises(SandboxRefusedError, match="is taken")
    with refused, running(fixed, NOWHERE, port=0):
        pytest.fail("it started")


def test_a_fixed_address_that_is_free_is_taken(tmp_path: Path) -> None:
    free = free_port()
    fixed = config(tmp_path, litellm={"baseUrl": f"http://localhost:{free}"})
    with running(fixed, NOWHERE, port=0) as sandbox:
        assert sandbox.settings.base_url == f"http://localhost:{free}"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.com", "::"])
def test_it_listens_on_the_loopback_only(host: str) -> None:
    refused = pytest.raises(SandboxRefusedError, match="loopback")
    with refused, running([OWN_CONFIG], NOWHERE, host=host, port=0):
        pytest.fail("it started")


@pytest.mark.parametrize("port", ["taken", 70_000])
def test_a_port_that_was_asked_for_is_not_exchanged(port: str | int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        wanted = occupied.getsockname()[1] if port == "taken" else int(port)
        refused = pytest.raises(SandboxRefusedError, match=f"port {wanted} can't be used")
        with refused, running([OWN_CONFIG], NOWHERE, port=wanted):
            pytest.fail("it started")


def test_a_faulty_configuration_ends_it_with_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(sandbox_command, ["--config", str(tmp_path / "nope.yaml")])
    assert result.exit_code == 2
    assert "nope.yaml" in result.stderr


@pytest.mark.deep
def test_it_runs_anywhere_and_ends_cleanly(tmp_path: Path) -> None:
    """As from an installed wheel: in an empty folder, with the package's own configuration."""
    environ = {name: value for name, value in os.environ.items() if "LITELLM" not in name}
    with subprocess.Popen(
        [sys.executable, "-m", "litellm_plugin", "sandbox", "--port", "0"],
        cwd=tmp_path,
        env={**environ, **NOWHERE, "TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("The sandbox is up: open http")
        process.send_signal(signal.SIGINT)
        told, complained = process.communicate(timeout=60)
    assert process.returncode == 0, complained
    assert told.endswith("The sandbox has ended.\n")
    assert "Traceback" not in complained
    assert list(tmp_path.iterdir()) == []


def filled(days_later: int = 0) -> LiteLLMStandIn:
    now = datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(days=days_later)
    litellm = LiteLLMStandIn(MASTER_KEY, clock=now.timestamp)
    people.fill(litellm, user_id_domain="example.com", today=now.date())
    return litellm


@pytest.fixture(scope="module")
def litellm() -> LiteLLMStandIn:
    return filled()


class TestWhatIsInside:
    def test_is_the_same_every_day_but_for_the_dates(self, litellm: LiteLLMStandIn) -> None:
        later = filled(days_later=10)
        days = [
            [(row.day - first).days for row in one.store.usage]
            for one, first in ((litellm, date(2026, 11, 23)), (later, date(2026, 12, 3)))
        ]
        assert days[0] == days[1]
        assert min(days[0]) == 1 - people.USAGE_DAYS
        assert max(days[0]) == 0
        spends = [
            {row["key_alias"]: row["spend"] for row in one.store.keys.values()}
            for one in (litellm, later)
        ]
        assert spends[0] == spends[1]

    def test_has_keys_in_every_state(self, litellm: LiteLLMStandIn) -> None:
        store = litellm.store
        states = {key["key_alias"]: store.key_status(key) for key in store.keys.values()}
        assert states["bob-laptop"] == "active"
        assert states["bob-hackathon"] == "expired"
        assert states["bob-lost"] == "revoked"
        budgets = [key for key in store.keys.values() if key["max_budget"]]
        assert all(0 < key["spend"] < key["max_budget"] for key in budgets)
        assert budgets

    def test_has_budgets_that_start_anew_in_the_future(self, litellm: LiteLLMStandIn) -> None:
        store = litellm.store
        rows = [*store.users.values(), *store.teams.values(), *store.keys.values()]
        resets = [row["budget_reset_at"] for row in rows if row["budget_reset_at"]]
        assert resets
        assert min(resets) > "2026-11-23T12"

    @pytest.mark.parametrize("file", [OWN_CONFIG, REPOSITORY / "app-config.yaml"])
    def test_is_what_the_configurations_speak_of(self, litellm: LiteLLMStandIn, file: Path) -> None:
        if not file.exists():
            pytest.skip(f"{file.name} is not there yet")
        settings: Settings = load_settings([file], {})
        groups = {
            f"{entity['kind']}:default/{entity['metadata']['name']}".lower()
            for entity in people.catalog()
        }
        admin = settings.team_admin
        named = {settings.audit.group, admin.group, *(r.group for r in settings.provisioning.roles)}
        assert named <= groups
        store = litellm.store
        assert set(admin.allowed_models) <= {row["model_name"] for row in store.models}
        stores = {row["vector_store_id"] for row in store.vector_stores}
        assert set(admin.allowed_vector_stores) <= stores
        servers = {row[name] for row in store.mcp_servers for name in ("server_id", "alias")}
        assert set(admin.allowed_mcp_servers) <= servers
        for groups_of in (
            frozenset[str](),
            *(frozenset([r.group]) for r in settings.provisioning.roles),
        ):
            assert set(settings.provisioning.for_groups(groups_of).teams) <= store.teams.keys()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example"])
def test_another_name_that_leads_to_the_loopback_is_refused(sandbox: Sandbox, host: str) -> None:
    url = f"{sandbox.page}api/auth/sandbox/refresh"
    headers = {"X-Sandbox-User": "user:default/alice"}
    assert requests.get(url, headers=headers, timeout=10).status_code == 200
    assert requests.get(url, headers={**headers, "Host": host}, timeout=10).status_code == 400


def test_bytes_that_are_no_http_leave_no_traceback(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = urlsplit(sandbox.page)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n")
        while client.recv(4096):
            pass
    assert "Traceback" not in capfd.readouterr().err
