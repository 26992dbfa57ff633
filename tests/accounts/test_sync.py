"""What follows the roles of people, what stays, and whose accounts are left alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from litellm_plugin.accounts.sync import BUSY, CHANGED, DIFFERS, REFUSED, UNCHANGED
from tests.accounts.sync_world import World, with_sync, world
from tests.apps import Apps
from tests.fakes.network import connection_refused
from tests.tokens import TokenFactory

JANE = "jane@example.com"
POWER, PLAIN = "power", "plain"


@pytest.fixture
def options() -> dict[str, Any]:
    """Settings of ``litellm.provisioning.sync``."""
    return {}


@pytest.fixture
def org(apps: Apps, tokens: TokenFactory, options: dict[str, Any]) -> Iterator[World]:
    """An organisation with jane, whose account was made without a group, and is taken in."""
    with world(with_sync(apps.settings(), **options), tokens, World) as made:
        made.person("jane")
        made.account(
            JANE,
            max_budget=10,
            budget_duration="30d",
            teams=["team-guests"],
            tpm_limit=100,
            user_role="internal_user",
            metadata={"backstage_entity": "user:default/jane", "notes": "hers"},
        )
        assert made.visit(JANE).taken_in
        yield made


def _events(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    lines = [json.loads(r.message) for r in caplog.records if r.name == "litellm_plugin.audit"]
    return [line for line in lines if line["eventId"] == "user-sync"]


def _key(org: World, alias: str, **fields: Any) -> str:
    answer = org.litellm.key_generate({"user_id": JANE, "key_alias": alias, **fields})
    return str(answer["token_id"])


def test_an_account_that_is_as_its_role_grants_is_not_written(org: World) -> None:
    org.calls.clear()
    assert org.visit(JANE).status == UNCHANGED
    assert org.calls == ["GET /v2/user/info"]


def test_who_moves_gets_what_the_new_role_grants_and_loses_what_the_old_one_did(
    org: World, caplog: pytest.LogCaptureFixture
) -> None:
    org.person("jane", PLAIN)
    with caplog.at_level(logging.INFO, "litellm_plugin.audit"):
        assert org.visit(JANE).status == CHANGED
    user = org.user(JANE)
    assert (user["models"], user["user_role"]) == (["gpt-4o-mini"], "internal_user_viewer")
    assert user["teams"] == ["team-plain"]
    assert user["metadata"]["notes"] == "hers"
    (event,) = _events(caplog)
    assert event["actor"] == {"actorId": "litellm-plugin:sync"}
    assert event["meta"] == {
        "userId": JANE,
        "entityRef": "user:default/jane",
        "before": {"models": [], "user_role": "internal_user", "teams": ["team-guests"]},
        "after": {
            "models": ["gpt-4o-mini"],
            "user_role": "internal_user_viewer",
            "teams": ["team-plain"],
        },
    }
    org.person("jane")
    assert org.visit(JANE).status == CHANGED
    assert org.user(JANE)["models"] == ["all-proxy-models"]  # LiteLLM ignores an empty list
    assert org.visit(JANE).status == UNCHANGED


def test_what_was_set_by_hand_stays_until_it_is_handed_back(org: World) -> None:
    org.litellm.user_update({"user_id": JANE, "max_budget": 50})
    org.person("jane", POWER)
    outcome = org.visit(JANE)
    assert [each.field for each in outcome.differences if each.action == "by hand"] == [
        "max_budget"
    ]
    assert org.user(JANE)["max_budget"] == 50
    assert org.user(JANE)["rpm_limit"] == 60
    org.litellm.user_update({"user_id": JANE, "max_budget": 10})
    org.visit(JANE)
    assert org.user(JANE)["max_budget"] == 100


def test_differences_from_before_the_first_run_were_made_by_hand(org: World) -> None:
    org.person("kim", POWER)
    org.account("kim@example.com", max_budget=3, teams=["team-other"])
    outcome = org.visit("kim@example.com")
    assert outcome.taken_in
    assert {each.action for each in outcome.differences} == {"by hand"}
    assert org.user("kim@example.com")["max_budget"] == 3
    assert org.user("kim@example.com")["teams"] == ["team-other"]


@pytest.mark.parametrize("options", [{"mode": "report"}])
def test_in_mode_report_nothing_is_written(org: World) -> None:
    org.person("jane", POWER)
    org.calls.clear()
    assert org.visit(JANE).status == DIFFERS
    assert org.writes == []


def test_an_unavailable_catalog_takes_nothing_away(org: World) -> None:
    org.backstage.failures["catalog"] = 503
    with pytest.raises(Exception, match="Backstage"):
        org.visit(JANE)
    org.backstage.failures.clear()
    org.leave("jane")
    assert org.visit(JANE).status == "missing"
    assert org.writes == []


def test_what_litellm_refuses_is_told_and_tried_again(org: World) -> None:
    org.person("jane", PLAIN)
    org.litellm.team_delete({"team_ids": ["team-plain"]})
    outcome = org.visit(JANE)
    assert outcome.status == REFUSED
    assert "Team doesn't exist" in outcome.errors[0]
    assert org.user(JANE)["models"] == ["gpt-4o-mini"]
    org.litellm.team_new({"team_id": "team-plain"})
    assert org.visit(JANE).status == CHANGED
    assert org.user(JANE)["teams"] == ["team-plain"]


def test_a_value_that_litellm_does_not_take_is_told(org: World) -> None:
    org.person("jane", POWER)  # without tpmLimit, which LiteLLM 1.81 can't remove
    change = org.litellm.store.change

    def kept(row: Any, changes: Any) -> None:
        change(row, {name: value for name, value in changes.items() if name != "tpm_limit"})

    org.litellm.store.change = kept  # type: ignore[method-assign]
    outcome = org.visit(JANE)
    assert outcome.errors == ("LiteLLM kept its own tpm_limit",)
    org.litellm.store.change = change  # type: ignore[method-assign]
    assert org.visit(JANE).status == CHANGED
    assert org.user(JANE)["tpm_limit"] is None


def test_litellm_that_is_down_leaves_the_change_pending(org: World) -> None:
    org.person("jane", PLAIN)
    org.host.failures["/team/member_add"] = connection_refused()
    with pytest.raises(Exception, match="LiteLLM"):
        org.visit(JANE)
    org.host.failures.clear()
    assert org.visit(JANE).status == CHANGED
    assert org.user(JANE)["teams"] == ["team-plain"]


def test_an_account_that_another_process_changes_is_left_to_it(org: World) -> None:
    org.person("jane", PLAIN)
    assert org.plugin.sync is not None
    with org.plugin.sync.grants.lock(JANE) as held:
        assert held
        assert org.visit(JANE).status == BUSY
    assert org.writes == []


# -- keys --------------------------------------------------------------------


def test_keys_beyond_the_role_are_only_reported_by_default(org: World) -> None:
    wide = _key(org, "wide", models=["gpt-4o"])
    team = _key(org, "of-team", team_id="team-guests")
    org.person("jane", PLAIN)
    outcome = org.visit(JANE)
    assert {(each.alias, each.action) for each in outcome.keys} == {
        ("wide", "reported only: gpt-4o not allowed"),
        ("of-team", "LiteLLM deletes it with the membership in team-guests"),
    }
    assert org.litellm.store.keys[wide]["models"] == ["gpt-4o"]
    assert team not in org.litellm.store.keys


@pytest.mark.parametrize("options", [{"on_excess_keys": "block"}])
def test_keys_beyond_the_role_are_narrowed_or_blocked(org: World) -> None:
    both = _key(org, "both", models=["gpt-4o", "gpt-4o-mini"])
    wide = _key(org, "wide", models=["gpt-4o"])
    every = _key(org, "every", models=[])
    doubtful = {
        _key(org, "words", models=["all-proxy-models"]): ["all-proxy-models"],
        _key(org, "wildcard", models=["gpt-*"]): ["gpt-*"],
        _key(org, "group", models=["an-access-group"]): ["an-access-group"],
    }
    fits = _key(org, "fits", models=["gpt-4o-mini"])
    made_by_jane = {"created_by_backstage_user": "user:default/jane", "backstage_team_key": True}
    of_team = {"team_id": "team-ml", "models": ["gpt-4o"], "metadata": made_by_jane}
    team_key = org.litellm.key_generate(of_team)["token"]
    before = dict(org.litellm.store.keys[team_key])
    org.person("jane", PLAIN)
    outcome = org.visit(JANE)
    keys = org.litellm.store.keys
    assert keys[both]["models"] == ["gpt-4o-mini"]
    assert keys[wide]["blocked"] is True
    assert {token: keys[token]["models"] for token in doubtful} == doubtful
    assert not any(keys[token]["blocked"] for token in (*doubtful, every, fits, both))
    assert {each.alias for each in outcome.keys} == {"both", "wide", "words", "wildcard", "group"}
    assert keys[team_key] == before


@pytest.mark.parametrize("options", [{"on_excess_keys": "block"}])
@pytest.mark.parametrize("fuse", range(22))
def test_a_killed_run_is_continued(org: World, caplog: pytest.LogCaptureFixture, fuse: int) -> None:
    wide = _key(org, "wide", models=["gpt-4o"])
    org.person("jane", PLAIN)
    with caplog.at_level(logging.INFO, "litellm_plugin.audit"):
        assert org.killed_visit(JANE, fuse)
        sync, account = org.plugin.sync, org.plugin.litellm.account(JANE)
        assert sync is not None
        assert account is not None
        person, known = sync.owner(account), sync.grants.of(JANE)
        sync.compare(person, account, apply=False, known=known)  # a dry run in between
        sync.compare(person, account, apply=True, known=known)
    user = org.user(JANE)
    assert (user["models"], user["teams"]) == (["gpt-4o-mini"], ["team-plain"])
    assert org.litellm.store.keys[wide]["blocked"] is True
    told = {name for event in _events(caplog) for name in event["meta"]["after"]}
    assert told == {"models", "user_role", "teams"}
    org.person("jane")
    org.visit(JANE)
    assert org.user(JANE)["teams"] == ["team-guests"]


# -- owners ------------------------------------------------------------------


def test_accounts_without_a_certain_owner_are_left_alone(org: World) -> None:
    org.person("kim", POWER, email="kim@corp.example")
    org.members["other-kim"] = {
        "kind": "User",
        "metadata": {"name": "kim", "namespace": "contractors"},
        "spec": {"profile": {"email": "kim@corp.example"}, "memberOf": []},
    }
    org.person("lee", POWER, email="lee@corp.example")
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "kim@example.com": ({}, "unclear"),  # the id of two people
        "ci": ({}, "nobody"),
        "default_user_id": ({}, "nobody"),
        "kim-sso": ({"user_email": "kim@corp.example"}, "unclear"),  # the e-mail of two people
        "ann": ({"metadata": {"backstage_entity": "user:default/ann"}}, "missing"),
        "x": ({"metadata": {"backstage_entity": "user:default/kim"}}, "unclear"),
    }
    for user_id, (fields, status) in cases.items():
        org.account(user_id, **fields)
        assert org.visit(user_id).status == status, user_id
    assert org.writes == []


def test_the_record_of_provisioning_decides_between_two_people_of_one_id(org: World) -> None:
    org.members["other-jane"] = {
        "kind": "User",
        "metadata": {"name": "jane", "namespace": "contractors"},
        "spec": {"memberOf": ["group:default/power"]},
    }
    org.person("jane", PLAIN)
    assert org.visit(JANE).status == CHANGED
    assert org.user(JANE)["user_role"] == "internal_user_viewer"


def test_an_account_found_by_its_email_is_its_owners(org: World) -> None:
    org.person("lee", POWER, email="lee@corp.example")
    org.account("sso-1", user_email="Lee@corp.example")
    assert org.visit("sso-1").entity_ref == "user:default/lee"
    org.account("lee@example.com")
    assert org.visit("sso-1").status == "unclear"
    assert org.visit("lee@example.com").entity_ref == "user:default/lee"


def test_an_account_that_changes_hands_during_a_run_is_left_alone(org: World) -> None:
    sync = org.plugin.sync
    assert sync is not None
    account = org.plugin.litellm.account(JANE)
    assert account is not None
    org.person("jane", PLAIN)
    person = sync.owner(account)
    org.user(JANE)["metadata"]["backstage_entity"] = "user:default/kim"
    assert sync.compare(person, account, apply=True).status == "unclear"
    assert org.writes == []
