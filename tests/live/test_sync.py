"""Accounts of the real LiteLLM follow the groups of the real catalog; grants are in PostgreSQL.

A Backstage of its own, on a free port, has a catalog in which people move.
"""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.proxy import Proxy
from tests.live.kinds import Deploy, Told
from tests.live.rigs import LITELLM_PORT, STATIC_TOKEN, LiteLLMRig, Organisation
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


@pytest.fixture(scope="module")
def org(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisation]:
    rig = Organisation(tmp_path_factory.mktemp("organisation"))
    for name in ("sync-walker", "sync-hand", "sync-killed", "sync-keys"):
        rig.has(name, "platform")
    rig.up()
    yield rig
    rig.down()


@pytest.fixture(scope="module")
def site(deploy: Deploy, litellm: LiteLLMRig, org: Organisation, postgres: Postgres) -> Service:
    """A service whose accounts follow the groups."""
    at = {"host": "127.0.0.1", "port": postgres.port, "user": OWNER, "password": PASSWORD}
    config = CONFIG.format(token=STATIC_TOKEN, connection=json.dumps(at))
    service: Service = deploy("sync", config, env={"BACKSTAGE_PORT": str(org.port)})
    return service


def _visit(site: Service, org: Organisation, name: str) -> None:
    json_of(Client(site.url, org.sign_in(name)).get("/user/info"))


def _synced(site: Service, *arguments: str) -> dict[str, Any]:
    return site.succeeds("sync", *arguments)


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
            assert site.killed_at(step, proxy, "sync", *person) == -signal.SIGKILL
            _synced(site, *person)
            assert _has(litellm, "sync-killed", role), f"killed at step {step}"
        assert _synced(site, *person)["counts"]["changed"] == 0
    finally:
        proxy.stop()
    told(f"sync was killed at the steps {KILLED_AT} of a change, and the next run repaired it")
