"""``sync`` shows what would change, changes it where it should, and can be run again."""

from __future__ import annotations

from typing import Any

import pytest

from litellm_plugin.store import runs
from litellm_plugin.store.database import Store, StoreUnavailable
from tests.cli.installation import Installation
from tests.standin import TEAM

ALICE = "alice@example.com"
CAROL = "carol@example.com"
POWER = "group:default/ai-power-users"


@pytest.fixture
def ready(installation: Installation) -> Installation:
    """An installation with sync in mode report, where carol has an account as from a first visit.

    alice and jane have accounts; the catalog does not have jane.
    """
    installation.settings["provisioning"]["sync"] = {"enabled": True}
    installation.standin.user_new(
        {
            "user_id": CAROL,
            "auto_create_key": False,
            "max_budget": 10,
            "budget_duration": "30d",
            "models": ["gpt-4o-mini"],
            "teams": [TEAM],
            "user_role": "internal_user",
            "metadata": {"backstage_entity": "user:default/carol"},
        }
    )
    assert installation.run("sync").exit_code == 0
    return installation


def _writes(installation: Installation) -> list[str]:
    return [asked.path for asked in installation.litellm.asked if asked.method != "GET"]


def _row(installation: Installation, user_id: str) -> Any:
    return installation.standin.store.users[user_id]


def _words(text: str) -> str:
    return " ".join(text.split())


def _grant_more(installation: Installation) -> None:
    """Let carol's role grant more than it did."""
    installation.settings["provisioning"]["roles"] = [
        {"group": POWER, "models": ["gpt-4o-mini"], "maxBudget": 100}
    ]


def test_a_dry_run_shows_the_differences_and_changes_nothing(ready: Installation) -> None:
    _grant_more(ready)
    ready.standin.user_update({"user_id": ALICE, "max_budget": 5})
    result = ready.run("sync")
    assert result.exit_code == 0
    text = _words(result.stdout)
    assert "user:default/carol max_budget 10 10 100 would be changed" in text
    assert "user:default/alice max_budget 10 5 10 set by hand," in text
    assert "Accounts: 3 checked, 1 would be changed" in text
    assert "Run with --apply" in result.stdout
    assert _writes(ready) == []


def test_a_narrow_terminal_loses_no_text(ready: Installation) -> None:
    models = [f"a-model-with-a-long-name-{number}" for number in range(4)]
    ready.settings["provisioning"]["roles"] = [{"group": POWER, "models": models}]
    narrow, wide = (
        ready.run("sync", environ={"COLUMNS": columns}).stdout for columns in ("60", "300")
    )
    assert max(map(len, narrow.splitlines())) <= 60
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))


def test_apply_removes_the_differences_once(ready: Installation) -> None:
    _grant_more(ready)
    told = ready.told("sync", "--apply")
    assert told["applied"] is True
    assert told["counts"]["changed"] == 1
    assert _row(ready, CAROL)["max_budget"] == 100
    assert _writes(ready) == ["/user/update"]
    (event,) = ready.events
    assert (event["eventId"], event["actor"]["actorId"]) == ("user-sync", "litellm-plugin:sync")
    assert ready.told("sync", "--apply")["counts"]["changed"] == 0
    assert _writes(ready) == ["/user/update"]


def test_mode_apply_is_the_default_where_configured(ready: Installation) -> None:
    _grant_more(ready)
    ready.settings["provisioning"]["sync"]["mode"] = "apply"
    assert ready.run("sync", "--dry-run").exit_code == 0
    assert _writes(ready) == []
    assert ready.run("sync").exit_code == 0
    assert _writes(ready) == ["/user/update"]


@pytest.mark.parametrize(
    ("option", "value", "checked"),
    [
        ("--user", "user:default/carol", 1),
        ("--user", "user:default/Carol", 1),
        ("--user", "carol", 1),
        ("--group", POWER.removeprefix("group:default/"), 1),
        ("--group", POWER, 1),
        ("--group", "group:default/litellm-admins", 1),
    ],
)
def test_some_people_only(
    ready: Installation, store: Store, option: str, value: str, checked: int
) -> None:
    assert ready.told("sync", option, value)["counts"]["checked"] == checked
    assert [row["status"] for row in runs.recent(store, "sync", 2)] == ["partial", "succeeded"]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--user", "user:default/dave", "no account of user:default/dave"),
        ("--group", "group:default/typo", "no group:default/typo"),
        # The same LiteLLM id.
        ("--user", "user:contractors/carol", f"{CAROL} is the account of user:default/carol, not"),
    ],
)
def test_who_is_not_there_is_named_and_nobody_is_changed(
    ready: Installation, option: str, value: str, told: str
) -> None:
    _grant_more(ready)
    result = ready.run("sync", "--apply", option, value)
    assert result.exit_code == 1
    assert told in result.stderr
    assert _writes(ready) == []


def test_users_are_read_by_pages_and_unchanged_accounts_cost_no_call(ready: Installation) -> None:
    ready.litellm.asked.clear()
    told = ready.told("sync", "--apply")
    assert told["counts"]["checked"] == 3
    assert told["counts"]["missing"] + told["counts"]["nobody"] == 1
    assert [asked.path for asked in ready.litellm.asked] == ["/user/list"]


def test_a_refusal_is_shown_and_ends_with_status_1(ready: Installation, store: Store) -> None:
    ready.settings["provisioning"]["defaults"]["teams"] = [TEAM, "team-missing"]
    result = ready.run("sync", "--apply", "--user", "user:default/carol")
    assert result.exit_code == 1
    text = _words(result.stdout)
    assert "carol@example.com: refused: Team doesn't exist" in text
    assert "1 refused by LiteLLM" in text
    assert runs.recent(store, "sync", 1)[0]["status"] == "failed"


def test_dry_run_and_apply_exclude_each_other(ready: Installation) -> None:
    assert ready.run("sync", "--dry-run", "--apply").exit_code == 2


def test_the_doctor_checks_it(ready: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        ready.doctor()["group-sync"]["found"]
        == "mode report; the grants of 2 accounts are recorded"
    )

    def away(*_: Any) -> Any:
        raise StoreUnavailable("SQLite store.sqlite: disk I/O error")

    monkeypatch.setattr(Store, "read", away)
    assert ready.doctor()["group-sync"]["status"] == "failed"
