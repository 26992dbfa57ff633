"""``sync``, ``offboard``, ``notify`` and ``prune`` are killed before each change, and run again.

A change is a call over HTTP, other than GET, or a transaction: what a run does between two of them,
such as reading the answer, leaves nothing behind. The command is the real one, in a process of its
own; its store is in PostgreSQL, and LiteLLM and Backstage answer over HTTP.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.keys.metadata import Mark
from litellm_plugin.sandbox.store import token_of
from litellm_plugin.shapes import BRIDGE_KEY, ROTATION
from litellm_plugin.store import tables
from tests import killed
from tests.cli.installation import Installation
from tests.fakes import Asked, People, Reply
from tests.postgres import OWNER, PASSWORD, Postgres, postgres

__all__ = ["postgres"]

pytestmark = pytest.mark.deep

IS_RUNNING = 75
TRIES = 100  # while PostgreSQL does not know yet that the process which held the lock is gone
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PLAIN, POWER = "group:default/plain", "group:default/power"
NAME = "backstage_plugin_litellm"
TABLES = [*tables.metadata.tables]
ROLES = [
    {"group": PLAIN, "maxBudget": 10, "models": ["gpt-4o", "gpt-4o-mini"], "teams": ["team-old"]},
    {"group": POWER, "maxBudget": 100, "models": ["gpt-4o-mini"], "teams": ["team-new"]},
]


class Hook:
    """A webhook's receiver."""

    base_url = ""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def answer(self, asked: Asked) -> Reply:
        self.ids.append(asked.headers["webhook-id"])
        return Reply(204)


class World:
    """LiteLLM, Backstage, a webhook and PostgreSQL, which can be put back to how they were.

    Attributes:
        litellm: The stand-in.
        config: The configuration file of the commands.
    """

    def __init__(
        self, installation: Installation, server: Postgres, folder: Path, stack: ExitStack
    ) -> None:
        self._server, self._out = server, folder / "out"
        self.backstage, self.hook = installation.fake, Hook()
        self.litellm = installation.standin
        self.litellm.store.reset()
        for team in ("team-old", "team-new"):
            self.litellm.team_new({"team_id": team})
        for model in ("gpt-4o", "gpt-4o-mini"):
            self.litellm.store.models.append({"model_name": model, "model_info": {}})
        backstage, litellm, hook = (
            stack.enter_context(killed.served(host))
            for host in (_BelowApi(self.backstage), installation.litellm.host, self.hook)
        )
        at = {"host": "127.0.0.1", "port": server.port, "user": OWNER, "password": PASSWORD}
        installation.config["backend"] = {
            "baseUrl": backstage,
            "database": {"client": "pg", "connection": at},
        }
        installation.settings.update(
            baseUrl=litellm,
            notifications={
                "enabled": True,
                "webhook": {"url": hook, "secret": "whsec_" + "A" * 32},
            },
            offboarding={"enabled": True},
        )
        installation.settings["provisioning"] |= {
            "defaults": {},
            "roles": ROLES,
            "sync": {"enabled": True, "mode": "apply", "onExcessKeys": "block"},
        }
        self.config = str(installation.write())

    def account(self, name: str, **fields: Any) -> None:
        """Have an account as provisioning makes it."""
        metadata = {"provisioned_by": "backstage", "backstage_entity": f"user:default/{name}"}
        user = {"user_id": f"{name}@example.com", "auto_create_key": False, "metadata": metadata}
        self.litellm.user_new({**user, **fields})

    def key(self, name: str, alias: str, **fields: Any) -> None:
        self.litellm.key_generate({"key_alias": alias, "user_id": f"{name}@example.com", **fields})

    def people(self, **groups: str) -> None:
        """Have these people in the catalog, each in a group."""
        self.backstage.people = People(
            {"kind": "User", "metadata": {"name": name}, "spec": {"memberOf": [group]}}
            for name, group in groups.items()
        )

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a job to its end."""
        for _ in range(TRIES):
            status, told = killed.command(*arguments, out=self._out)
            if status != IS_RUNNING:
                break
        assert status == 0
        assert told is not None
        return told

    def keep(self) -> None:
        """Remember how everything is."""
        self._kept = self._now()
        copies = (f"CREATE TABLE kept.{table} AS TABLE {table}" for table in TABLES)
        self._server.execute("; ".join(["CREATE SCHEMA kept", *copies]), NAME)

    def restore(self) -> None:
        """Put everything back to how it was."""
        rows, self.backstage.notices, self.hook.ids = deepcopy(self._kept)
        vars(self.litellm.store).update(rows)
        # Much faster than a new database.
        copies = (f"INSERT INTO {table} TABLE kept.{table}" for table in TABLES)
        self._server.execute("; ".join([f"TRUNCATE {', '.join(TABLES)}", *copies]), NAME)

    def _now(self) -> Any:
        store = vars(self.litellm.store)
        rows = {name: rows for name, rows in store.items() if isinstance(rows, dict | list)}
        return deepcopy((rows, self.backstage.notices, self.hook.ids))

    def table(self, name: str, *columns: str) -> list[Any]:
        """Return columns of a table, its rows sorted."""
        return sorted(
            map(list, self._server.execute(f"SELECT {', '.join(columns)} FROM {name}", NAME)),
            key=str,
        )

    def keys(self) -> dict[str, tuple[Any, Any]]:
        """Return models and block of each key."""
        return {
            key["key_alias"]: (key["models"], key["blocked"])
            for key in self.litellm.store.keys.values()
        }

    def killed_at_every_step(self, state: Callable[[], Any], *job: str) -> Counter[str]:
        """Kill a job at each step, run it again, and compare with a run that was not killed.

        Args:
            state: Returns what is compared.
            job: The command.

        Returns:
            The number of steps, and of those at which the killed run had changed something.
        """
        self.keep()
        before = state()
        self.run(*job)
        wanted, counted = state(), Counter[str]()
        assert wanted != before
        while True:
            self.restore()
            step = counted["steps"]
            status, _ = killed.command(*job, out=self._out, killed_at=step)
            if status != -signal.SIGKILL:
                assert status == 0
                assert state() == wanted
                break
            counted["partial"] += state() not in (before, wanted)
            self.run(*job)
            assert state() == wanted, f"killed at step {step}"
            counted["steps"] += 1
        self.run(*job)
        assert state() == wanted
        return counted


class _BelowApi:
    """Backstage, whose plugins are below ``/api``."""

    base_url = ""

    def __init__(self, backstage: Any) -> None:
        self._backstage = backstage

    def answer(self, asked: Asked) -> Reply:
        path = asked.path.removeprefix("/api")
        reply: Reply = self._backstage.answer(
            Asked(asked.method, path, asked.query, asked.headers, asked.body)
        )
        return reply


@pytest.fixture
def world(installation: Installation, postgres: Postgres, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(installation, postgres, tmp_path, stack)
        postgres.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


def test_sync(world: World) -> None:
    world.people(ann=PLAIN, ben=PLAIN)
    for name in ("ann", "ben"):
        world.account(name, max_budget=10, models=["gpt-4o", "gpt-4o-mini"], teams=["team-old"])
    world.run("sync", "--json", "--config", world.config)
    world.litellm.user_update({"user_id": "ben@example.com", "max_budget": 7})  # by hand
    world.key("ann", "wide", models=["gpt-4o", "gpt-4o-mini"])
    world.key("ann", "other", models=["gpt-4o"])
    world.people(ann=POWER, ben=POWER)

    def state() -> Any:
        users = {
            user_id: (user["max_budget"], user["models"], user["teams"])
            for user_id, user in world.litellm.store.users.items()
        }
        members = {
            team_id: sorted(
                member["user_id"]
                for member in team["members_with_roles"]
                if member["user_id"] in users
            )
            for team_id, team in world.litellm.store.teams.items()
        }
        granted = world.table("grants", "user_id", "entity_ref", "granted", "pending")
        return users, members, world.keys(), granted

    counted = world.killed_at_every_step(state, "sync", "--json", "--config", world.config)
    assert counted["partial"] >= 6
    users, members, keys, granted = state()
    assert users["ann@example.com"] == (100, ["gpt-4o-mini"], ["team-new"])
    assert users["ben@example.com"] == (7, ["gpt-4o-mini"], ["team-new"])
    assert members == {"team-old": [], "team-new": ["ann@example.com", "ben@example.com"]}
    assert keys == {"wide": (["gpt-4o-mini"], None), "other": (["gpt-4o"], True)}
    assert [pending for *_, pending in granted] == [None, None]


@pytest.mark.parametrize("act", ["block", "unblock", "delete"])
def test_offboard(world: World, act: str) -> None:
    world.people(ann=PLAIN, ben=PLAIN)
    for name in ("ann", "ben"):
        world.account(name)
        for alias in ("laptop", "build", "by-hand"):
            world.key(name, f"{name}-{alias}")
    for row in world.litellm.store.keys.values():
        if row["key_alias"].endswith("by-hand"):
            row["blocked"] = True
    job = ["offboard", "--json", "--apply", "--grace", "0", "--config", world.config]
    world.people(ben=PLAIN)
    world.run(*job)  # sees ann missing for the first time
    if act != "block":
        world.run(*job)
    if act == "unblock":
        world.people(ann=PLAIN, ben=PLAIN)
    if act == "delete":
        job += ["--delete-after", "0"]

    def state() -> Any:
        blocked = {alias for alias, (_, blocked) in world.keys().items() if blocked}
        columns = ("user_id", "blocking", "blocked_keys::text", "deleted_at IS NULL")
        return sorted(world.litellm.store.users), blocked, world.table("leavers", *columns)

    counted = world.killed_at_every_step(state, *job)
    assert counted["partial"] >= (1 if act == "delete" else 4)
    users, blocked, leavers = state()
    assert (
        blocked
        == {
            "block": {"ann-by-hand", "ann-build", "ann-laptop", "ben-by-hand"},
            "unblock": {"ann-by-hand", "ben-by-hand"},
            "delete": {"ben-by-hand"},
        }[act]
    )
    assert ("ann@example.com" in users) is (act != "delete")
    assert len(leavers) == (act != "unblock")


def test_notify(world: World) -> None:
    world.people(ann=PLAIN, ben=PLAIN)
    for name, spend in (("ann", 8.5), ("ben", 11)):
        world.account(name, max_budget=10)
        world.litellm.store.users[f"{name}@example.com"]["spend"] = spend
    job = ("notify", "--json", "--apply", "--config", world.config)
    world.run("notify", "--json", "--config", world.config)  # makes the tables

    def state() -> Any:
        shown = world.backstage.notices
        titles = {person: notice["title"] for (person, _), notice in shown.items()}
        sent = world.table("notices", "subject_id", "threshold", "recipient")
        # A receiver knows by its id that an event comes again.
        return titles, len(shown), set(world.hook.ids), sent

    counted = world.killed_at_every_step(state, *job)
    assert counted["partial"] >= 6
    titles, number, ids, sent = state()
    assert set(titles) == {"user:default/ann", "user:default/ben"}
    assert (number, len(ids), len(sent)) == (2, 2, 4)


def test_prune(world: World) -> None:
    past, tool = "2026-11-01T00:00:00+00:00", {"tool": "claude-code", "machine": "laptop"}
    for number in range(3):
        world.key("ann", f"tool-{number}", metadata={BRIDGE_KEY: tool})
    secret = "sk-killed-old-key-0123456789"
    world.key("ann", "ci", key=secret)
    old = token_of(secret)
    mark = Mark((old,), "ci", delivered=True)
    world.key("ann", f"ci.rotation-{old[:12]}", metadata={ROTATION: mark.as_json()})
    world.key("ann", "by-hand")
    for row in world.litellm.store.keys.values():
        row["created_at"] = past
        if row["key_alias"] == "by-hand" or row["key_alias"].startswith("tool-"):
            row["expires"] = past

    def state() -> Any:
        rows = world.litellm.store.keys.values()
        return {row["key_alias"]: row["expires"] is None for row in rows}

    job = ("prune", "--json", "--apply", "--config", world.config)
    world.run("prune", "--json", "--config", world.config)  # makes the tables
    counted = world.killed_at_every_step(state, *job)
    assert counted["partial"] >= 4
    found = state()
    assert found.pop("ci") is True
    assert found.pop("by-hand") is False
    ((alias, endless),) = found.items()
    assert alias.startswith("ci.rotated-")
    assert not endless
