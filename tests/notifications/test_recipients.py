"""Whom a notice goes to, and whether that person may see amounts of money."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.accounts.directory import AllPeople
from litellm_plugin.clients.backstage import Entity
from litellm_plugin.config.settings import Discovery, Display, Settings, TeamAdmin
from litellm_plugin.notifications.recipients import Recipients

GROUP = "group:default/team-admins"
SETTINGS = Settings(
    base_url="http://litellm",
    master_key="sk-x",
    discovery=Discovery("http://backstage"),
    user_id_domain="example.com",
    permission_enabled=True,
    team_admin=TeamAdmin(group=GROUP),
)
PEOPLE = {
    "user:default/jane": frozenset[str](),
    "user:default/dave": frozenset({GROUP}),
    "user:default/erin": frozenset({GROUP}),
    "user:default/bob": frozenset[str](),
    "user:contractors/bob": frozenset[str](),
}


def recipients(settings: Settings = SETTINGS) -> Recipients:
    entities = ((ref, Entity("User", groups)) for ref, groups in PEOPLE.items())
    people = AllPeople(entities, settings.user_id_domain)
    adopted = {"4712": "user:default/jane", "4713": "user:default/left"}
    owns = lambda team: team["metadata"]["owning_group"] == GROUP  # noqa: E731
    return Recipients(people, settings, owns, adopted)


def team(*members: tuple[str, str], owner: str | None = GROUP) -> dict[str, Any]:
    rows = [{"user_id": f"{name}@example.com", "role": role} for name, role in members]
    return {"team_id": "t", "members_with_roles": rows, "metadata": {"owning_group": owner}}


@pytest.mark.parametrize(
    ("user_id", "metadata", "person"),
    [
        ("jane@example.com", {}, "user:default/jane"),
        ("jane@example.com", None, "user:default/jane"),
        ("Jane@Example.com", {}, "user:default/jane"),
        ("4711", {"backstage_entity": "User:default/Jane"}, "user:default/jane"),
        ("4711", {"backstage_entity": "user:jane"}, "user:default/jane"),
        # Two people have the id, and provisioning has recorded one.
        ("bob@example.com", {}, None),
        ("bob@example.com", {"backstage_entity": "user:contractors/bob"}, "user:contractors/bob"),
        # The account of somebody who has left is not that of a namesake.
        ("jane@example.com", {"backstage_entity": "user:contractors/jane"}, None),
        ("jane@example.com", {"backstage_entity": "group:default/team-admins"}, None),
        # The bridge records the LiteLLM id.
        ("jane@example.com", {"backstage_entity": "jane"}, "user:default/jane"),
        ("4711", {}, None),
        # Accounts that were found by e-mail; the owner of one has left.
        ("4712", {}, "user:default/jane"),
        ("4713", {}, None),
        ("jane@elsewhere.org", {}, None),
        ("default_user_id", {}, None),
    ],
)
def test_the_person_of_a_user(user_id: str, metadata: Any, person: str | None) -> None:
    found = recipients().of_user({"user_id": user_id, "metadata": metadata})
    assert dict(found.people) == ({} if person is None else {person: True})


def test_a_reserved_id_is_nobody_s() -> None:
    settings = replace(
        SETTINGS, service=replace(SETTINGS.service, reserved_user_ids=("jane@example.com",))
    )
    assert not recipients(settings).of_user({"user_id": "jane@example.com"}).people


@pytest.mark.parametrize(
    ("members", "owner", "managers"),
    [
        ([("dave", "user"), ("jane", "user")], GROUP, {"dave"}),
        ([("dave", "user"), ("jane", "admin")], GROUP, {"dave", "jane"}),
        ([("dave", "user"), ("jane", "user")], None, set()),
        ([("dave", "user"), ("jane", "admin")], "group:default/others", {"jane"}),
        ([("jane", "user")], GROUP, {"dave", "erin"}),
        ([("nobody", "admin")], GROUP, {"dave", "erin"}),
        ([("nobody", "admin")], None, set()),
    ],
)
def test_the_managers_of_a_team(
    members: list[tuple[str, str]], owner: str | None, managers: set[str]
) -> None:
    found = recipients().of_team(team(*members, owner=owner))
    assert set(found.people) == {f"user:default/{name}" for name in managers}


def test_without_team_management_the_group_manages_nothing() -> None:
    settings = replace(SETTINGS, permission_enabled=False)
    assert not recipients(settings).of_team(team(("dave", "user"))).people


@pytest.mark.parametrize(
    ("members", "managers", "seen", "webhook"),
    [
        (False, False, {"dave": True, "jane": True}, True),
        (True, False, {"dave": True, "jane": False}, False),
        (False, True, {"dave": False, "jane": True}, False),
        (True, True, {"dave": False, "jane": False}, False),
    ],
)
def test_who_may_see_the_amounts_of_a_team(
    members: bool, managers: bool, seen: dict[str, bool], webhook: bool
) -> None:
    display = Display(hide_team_budget_for_members=members, hide_team_budget_for_managers=managers)
    found = recipients(replace(SETTINGS, display=display)).of_team(
        team(("dave", "user"), ("jane", "admin"))
    )
    assert found.people == {f"user:default/{name}": shown for name, shown in seen.items()}
    assert found.amounts is webhook


def test_a_key_is_its_owner_s_and_without_one_its_team_s_managers() -> None:
    known = recipients()
    known.of_user({"user_id": "4711", "metadata": {"backstage_entity": "user:default/jane"}})
    known.of_team(team(("dave", "user")))
    expected: list[tuple[dict[str, Any], list[str]]] = [
        ({"user_id": "4711", "team_id": "t"}, ["user:default/jane"]),
        ({"user_id": "jane@example.com"}, ["user:default/jane"]),
        ({"user_id": None, "team_id": "t"}, ["user:default/dave"]),
        ({"user_id": "4712", "team_id": "t"}, []),
        ({"user_id": None, "team_id": "other"}, []),
        ({"user_id": None, "team_id": None}, []),
    ]
    for key, people in expected:
        assert list(known.of_key(key).people) == people


@pytest.mark.parametrize("members", [None, "x", ["x", None, {}, {"user_id": 5}]])
def test_odd_members_are_left_out(members: Any) -> None:
    row = {"team_id": "t", "members_with_roles": members, "metadata": {"owning_group": GROUP}}
    assert set(recipients().of_team(row).people) == {"user:default/dave", "user:default/erin"}
