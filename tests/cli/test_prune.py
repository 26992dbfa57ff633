"""``prune``: expired tool keys and interrupted rotations, by way of the real command."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin.keys.metadata import RotationRecord
from litellm_plugin.sandbox.store import token_of
from litellm_plugin.shapes import BRIDGE_KEY, ROTATION
from litellm_plugin.store import runs
from litellm_plugin.store.database import Store
from tests.cli.installation import Installation
from tests.fakes import connection_refused
from tests.fakes.network import Reply

PAST = "2026-11-01T00:00:00+00:00"
TOOL = {BRIDGE_KEY: {"tool": "claude-code", "machine": "laptop"}}


class Keys:
    """The command, and LiteLLM's keys."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.litellm: Any = installation.standin

    def make(self, alias: str, **row: Any) -> str:
        secret = f"sk-prune-{alias}-0123456789"
        self.litellm.key_generate({"key": secret, "key_alias": alias, "user_id": "ann@example.com"})
        self.litellm.store.keys[token_of(secret)] |= row
        return token_of(secret)

    def aliases(self) -> set[str]:
        return {row["key_alias"] for row in self.litellm.store.keys.values()}

    def run(self, *arguments: str, status: int = 0) -> dict[str, Any]:
        return self.installation.told("prune", *arguments, status=status)

    def page(self, *arguments: str) -> str:
        return self.installation.run("prune", *arguments, environ={"COLUMNS": "200"}).stdout


@pytest.fixture
def office(installation: Installation) -> Keys:
    installation.settings["bridge"]["keys"] = {}
    office = Keys(installation)
    office.litellm.store.reset()
    office.make("expired", expires=PAST, metadata=TOOL)
    office.make("by-hand", expires=PAST)
    old = office.make("ci")
    mark = RotationRecord((old,), "ci", delivered=True).as_json()
    made = office.make(f"ci.rotation-{old[:12]}", metadata={ROTATION: mark})
    office.litellm.store.keys[made]["created_at"] = PAST
    return office


def test_a_dry_run_changes_nothing_and_lists_what_is_due(office: Keys) -> None:
    before = office.aliases()
    told = office.run()
    assert office.aliases() == before
    assert told["applied"] is False
    assert {(each["key_alias"].partition(".")[0], each["action"]) for each in told["keys"]} == {
        ("expired", "delete expired tool key"),
        ("ci", "complete a rotation"),
    }
    page = office.page()
    assert "delete expired tool key" in page
    assert "Run with --apply" in page
    assert [each.path for each in office.installation.litellm.asked if each.method != "GET"] == []


def test_a_run_prunes_and_is_recorded_and_audited(office: Keys, store: Store) -> None:
    told = office.run("--apply")
    aliases = office.aliases()
    assert aliases > {"by-hand", "ci"}
    assert len(aliases) == 3
    (renamed,) = aliases - {"by-hand", "ci"}
    assert renamed.startswith("ci.rotated-")
    assert told["counts"] == {
        "found": 2,
        "delete expired tool key": 1,
        "complete a rotation": 1,
    }
    by_event = {event["eventId"]: event for event in office.installation.events}
    assert set(by_event) == {"prune-key-delete", "prune-rotation-finish"}
    deleted = by_event["prune-key-delete"]
    assert deleted["actor"] == {"actorId": "litellm-plugin:prune"}
    assert deleted["meta"]["keyAlias"] == "expired"
    assert deleted["meta"]["userId"] == "ann@example.com"
    (run,) = runs.recent(store, "prune", 9)
    assert run["status"] == "succeeded"
    assert office.run("--apply")["keys"] == []
    assert "Nothing to do." in office.page()


def test_all_pages_of_keys_are_read(office: Keys) -> None:
    for number in range(130):
        office.make(f"tool-{number}", expires=PAST, metadata=TOOL)
    assert office.run("--apply")["counts"]["delete expired tool key"] == 131
    assert len(office.aliases()) == 3


def test_a_refusal_is_status_1_and_the_rest_is_done(office: Keys, store: Store) -> None:
    office.installation.litellm.replies["/key/delete"] = Reply(403, {"error": {"message": "no"}})
    told = office.run("--apply", status=1)
    assert list(told["failures"].values()) == ["no"]
    assert "ci" in office.aliases()
    (run,) = runs.recent(store, "prune", 9)
    assert (run["status"], run["error"]) == ("failed", "LiteLLM refused some changes")


def test_litellm_is_down(office: Keys) -> None:
    office.installation.litellm.replies["*"] = connection_refused()
    office.run("--apply", status=1)


def test_without_a_store_nothing_is_applied(office: Keys) -> None:
    del office.installation.settings["bridge"]["keys"]
    before = office.aliases()
    office.run("--apply", status=2)
    assert len(office.run()["keys"]) == 2
    assert office.aliases() == before
