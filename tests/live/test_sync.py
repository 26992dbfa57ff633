"""Accounts of the real LiteLLM follow the groups of the real catalog; grants are in PostgreSQL.

A Backstage of its own, on a free port, has a catalog in which people move.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployed import free_port
from tests.faults.proxy import Exchange, Proxy
from tests.live.kinds import Deploy, Told
from tests.live.rigs import LITELLM_PORT, REPO, SHARED, STATIC_TOKEN, BackstageRig, LiteLLMRig
from tests.live.service import Service
from tests.live.test_first_visit import DEFAULTS, POWER_USERS
from tests.live.web import Client, eventually, json_of
from tests.postgres import OWNER, PASSWORD, Postgres

POWER = "ai-power-users"
KILLED_AT = (3, 7, 11)  # steps of a run for one person; each call to LiteLLM has two

CONFIG = """\
    backstageToken: {token}
  provisioning:
    sync: {{enabled: true, mode: apply, visitInterval: 1s, onExcessKeys: block}}
backend:
  database:
    client: pg
    connection: {connection}
"""


class Organisation(BackstageRig):
    """A Backstage whose people a test moves between groups."""

    def __init__(self, folder: Path) -> None:
        super().__init__("")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._people: dict[str, tuple[str, ...]] = {}
        self._file = folder / "org.yaml"
        extra = folder / "app-config.org.yaml"
        locations = [{"type": "file", "target": str(self._file)}]
        extra.write_text(json.dumps({"catalog": {"locations": locations}}))
        self._env |= {"BACKSTAGE_PORT": str(port), "BACKSTAGE_CONFIG_EXTRA": str(extra)}
        self._env["KEYCLOAK_PORT"] = str(free_port())  # which ends with this Backstage
        del self._env["LITELLM_FLASK_URL"]  # so it has the npm plugin, which nobody asks
        self._write()

    def has(self, name: str, *groups: str) -> None:
        """Have a person in the catalog, as direct member of these groups."""
        self._people[name] = groups
        self._write()
        if not self.running:
            return
        catalog = Client(self.url, STATIC_TOKEN)
        known = next(iter(self._people))  # all come from the same file
        wanted = sorted(f"group:default/{group}" for group in groups)

        def arrived() -> bool:
            refreshed = catalog.post("/api/catalog/refresh", {"entityRef": f"user:default/{known}"})
            assert refreshed.status_code == 200, refreshed.text
            found = catalog.get(f"/api/catalog/entities/by-name/user/default/{name}")
            return found.status_code == 200 and wanted == sorted(
                relation["targetRef"]
                for relation in found.json().get("relations", [])
                if relation["type"] == "memberOf"
            )

        eventually(arrived, within=60)

    def _write(self) -> None:
        people = [
            {
                "apiVersion": "backstage.io/v1alpha1",
                "kind": "User",
                "metadata": {"name": name},
                "spec": {"memberOf": [*groups]},
            }
            for name, groups in self._people.items()
        ]
        text = (SHARED / "backstage" / "catalog" / "org.yaml").read_text()
        self._file.write_text("\n---\n".join([text, *map(json.dumps, people)]))


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisation]:
    rig = Organisation(tmp_path_factory.mktemp("organisation"))
    for name in ("sync-walker", "sync-hand", "sync-killed", "sync-keys"):
        rig.has(name, "platform")
    rig.up()
    yield rig
    rig.down()


@pytest.fixture(scope="module")
def site(
    deploy: Deploy,
    litellm: LiteLLMRig,
    org: Organisation,
    postgres: Postgres,
) -> Service:
    """A service whose accounts follow the groups."""
    at = {"host": "127.0.0.1", "port": postgres.port, "user": OWNER, "password": PASSWORD}
    config = CONFIG.format(token=STATIC_TOKEN, connection=json.dumps(at))
    service: Service = deploy("sync", config, env={"BACKSTAGE_PORT": str(org.port)})
    return service


def _visit(site: Service, org: Organisation, name: str) -> None:
    json_of(Client(site.url, org.sign_in(name)).get("/user/info"))


def _sync(site: Service, *arguments: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "litellm_plugin", "sync", "--json", *arguments],
        cwd=REPO,
        env={**site.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _synced(site: Service, *arguments: str) -> dict[str, Any]:
    process = _sync(site, *arguments)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return dict(json.loads(out))


def _has(litellm: LiteLLMRig, name: str, wanted: dict[str, Any]) -> bool:
    """Tell whether LiteLLM has an account as a role grants it, each membership once."""
    user = litellm.user(f"{name}@example.com")
    assert user is not None
    info = dict(user["user_info"])
    if "all-proxy-models" in info["models"]:
        info["models"] = []
    members = [
        member["user_id"]
        for team in info["teams"]
        if (row := litellm.team(team)) is not None
        for member in row["members_with_roles"]
        if member["user_id"] == info["user_id"]
    ]
    return len(members) == len(info["teams"]) and {name: info[name] for name in wanted} == wanted


def test_a_visitor_who_moves_gets_the_other_role(
    site: Service, org: Organisation, litellm: LiteLLMRig, told: Told
) -> None:
    _visit(site, org, "sync-walker")
    assert _has(litellm, "sync-walker", DEFAULTS)

    def follows(wanted: dict[str, Any]) -> bool:
        _visit(site, org, "sync-walker")
        return _has(litellm, "sync-walker", wanted)

    org.has("sync-walker", POWER)
    eventually(lambda: follows(POWER_USERS))
    org.has("sync-walker", "platform")
    eventually(lambda: follows(DEFAULTS))
    told("sync-walker's account followed a move between groups, there and back, on visits")


def test_a_limit_that_is_changed_by_hand_survives(
    site: Service, org: Organisation, litellm: LiteLLMRig, told: Told
) -> None:
    _visit(site, org, "sync-hand")
    user_id = "sync-hand@example.com"
    json_of(litellm.admin.post("/user/update", {"user_id": user_id, "tpm_limit": 5}))
    org.has("sync-hand", POWER)
    person = ("--user", "user:default/sync-hand")
    shown = _synced(site, "--dry-run", *person)
    assert shown["counts"]["differs"] == 1
    assert _has(litellm, "sync-hand", {**DEFAULTS, "tpm_limit": 5})
    _synced(site, *person)
    assert _has(litellm, "sync-hand", {**POWER_USERS, "tpm_limit": 5})
    (stays,) = _synced(site, *person)["accounts"][0]["differences"]
    assert (stays["field"], stays["now"], stays["action"]) == ("tpm_limit", 5, "by hand")
    # Set to what was granted, it follows the role again.
    json_of(litellm.admin.post("/user/update", {"user_id": user_id, "tpm_limit": stays["granted"]}))
    _synced(site)
    assert _has(litellm, "sync-hand", POWER_USERS)
    told("a tpm_limit of 5, set by hand, survived sync, and followed the role once handed back")


def test_keys_beyond_the_new_models_are_narrowed_or_blocked(
    site: Service, org: Organisation, litellm: LiteLLMRig, told: Told
) -> None:
    _visit(site, org, "sync-keys")
    tokens = {}
    for alias, models in (
        ("sync-both", ["gpt-4o", "claude-sonnet-4"]),
        ("sync-wide", ["claude-sonnet-4"]),
        ("sync-every", []),
    ):
        body = {"user_id": "sync-keys@example.com", "key_alias": alias, "models": models}
        tokens[alias] = json_of(litellm.admin.post("/key/generate", body))["token_id"]
    org.has("sync-keys", POWER)
    _synced(site, "--group", f"group:default/{POWER}")
    keys = {alias: litellm.key(token) for alias, token in tokens.items()}
    assert keys["sync-both"]["models"] == ["gpt-4o"]
    assert keys["sync-wide"]["blocked"] is True
    assert not keys["sync-every"]["blocked"]
    told("a key of two models kept the allowed one; a key without an allowed model was blocked")


def test_a_run_that_is_killed_is_repaired_by_the_next(
    site: Service, org: Organisation, litellm: LiteLLMRig, told: Told
) -> None:
    # tests/cli/test_killed.py has all the steps.
    _visit(site, org, "sync-killed")
    proxy = Proxy(LITELLM_PORT)
    person = ("--apply", "--user", "user:default/sync-killed")
    turns = itertools.cycle([(POWER, POWER_USERS), ("platform", DEFAULTS)])
    try:
        for step, (group, role) in zip(KILLED_AT, turns, strict=False):
            org.has("sync-killed", group)
            assert _killed_at(step, proxy, site, *person) == -signal.SIGKILL
            _synced(site, *person)
            assert _has(litellm, "sync-killed", role), f"killed at step {step}"
        assert _synced(site, *person)["counts"]["changed"] == 0
    finally:
        proxy.stop()
    told(f"sync was killed at the steps {KILLED_AT} of a change, and the next run repaired it")


def _killed_at(step: int, proxy: Proxy, site: Service, *arguments: str) -> int:
    """Run sync, and kill it before or after LiteLLM acts on a call; returns the exit status."""
    left = step
    process: subprocess.Popen[str] | None = None

    def burn() -> None:
        nonlocal left
        left -= 1
        if left < 0 and process is not None and process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    def fault(exchange: Exchange) -> None:
        burn()
        if left < 0:
            return
        answer = exchange.forward()
        burn()
        exchange.send(answer)

    proxy.spoil(fault)
    process = _sync(site, *arguments, LITELLM_BASE_URL=proxy.url)
    process.communicate(timeout=120)
    return process.returncode
