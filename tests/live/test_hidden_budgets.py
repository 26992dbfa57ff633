"""Budgets hidden from members, and from managers: services with other ``litellm.display``."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.live.kinds import Deploy, Person, Told
from tests.live.rigs import LiteLLMRig
from tests.live.service import Service
from tests.live.web import Client, days, eventually, json_of

DOLLARS = ("max_budget", "soft_budget", "team_member_budget")
BUDGET = 20.0  # USD


@pytest.fixture(scope="module")
def from_members(deploy: Deploy) -> Service:
    return deploy("hide-from-members", "  display: {hideTeamBudgetForMembers: true}\n")


@pytest.fixture(scope="module")
def from_managers(deploy: Deploy) -> Service:
    return deploy("hide-from-managers", "  display: {hideTeamBudgetForManagers: true}\n")


@pytest.fixture
def team_id(person: Person) -> str:
    """A team with a budget, erin in it."""
    dave = person("dave")
    body = {"team_alias": f"Team {uuid4().hex[:8]}", "models": ["gpt-4o"], "max_budget": BUDGET}
    team_id = str(json_of(dave.post("/teams", body))["team_id"])
    json_of(dave.post(f"/teams/{team_id}/members", {"userEntityRef": "user:default/erin"}))
    return team_id


def shown_in(client: Client, path: str, team_id: str) -> dict[str, Any]:
    teams = {team["team_id"]: team for team in json_of(client.get(path))}
    return dict(teams[team_id])


def assert_hidden(team: dict[str, Any]) -> None:
    assert team["budget_hidden"] is True
    assert team["spend"] == 0
    assert not set(DOLLARS) & set(team)


def test_members_see_a_percentage_instead_of_dollars(
    from_members: Service, person: Person, litellm: LiteLLMRig, team_id: str, told: Told
) -> None:
    erin = person("erin", at=from_members)
    assert json_of(erin.get("/config"))["display"]["hideTeamBudgetForMembers"] is True
    fresh = shown_in(erin, "/teams", team_id)
    assert_hidden(fresh)
    assert (fresh["budget_pct"], fresh["budget_status"]) == (0, "ok")

    body = {"alias": f"key-{uuid4().hex[:8]}", "team_id": team_id}
    key = json_of(erin.post("/keys/generate", body))
    json_of(litellm.complete(key["key"], "gpt-4o"))
    spend = eventually(lambda: (litellm.team(team_id) or {})["spend"])
    dave = person("dave")
    for pct, status in ((50, "ok"), (90, "near"), (100, "over")):
        json_of(dave.patch(f"/teams/{team_id}", {"max_budget": spend / pct * 100}))
        team = shown_in(erin, "/teams", team_id)
        assert_hidden(team)
        assert team["budget_pct"] == pytest.approx(pct)
        assert team["budget_status"] == status
    usage = eventually(lambda: spent(json_of(erin.get(f"/teams/{team_id}/usage", **days()))))
    assert usage["total_spend"] == 0
    assert all(day["spend"] == 0 for day in usage["daily_usage"])
    told(f"erin sees 50 % ok, 90 % near, 100 % over, and no dollars of {team_id}")


def test_managers_go_on_seeing_what_is_hidden_from_members_only(
    from_members: Service, person: Person, team_id: str
) -> None:
    dave = person("dave", at=from_members)
    assert shown_in(dave, "/teams/managed", team_id)["max_budget"] == BUDGET


def test_managers_see_no_dollars_in_any_answer(
    from_managers: Service, person: Person, litellm: LiteLLMRig, team_id: str, told: Told
) -> None:
    dave = person("dave", at=from_managers)
    body = {"team_alias": "Hidden", "models": ["gpt-4o"], "max_budget": 5}
    path = f"/teams/{team_id}"
    erin = {"userEntityRef": "user:default/erin"}
    answers = [
        json_of(dave.post("/teams", body)),
        json_of(dave.patch(path, {"max_budget": 7})),
        json_of(dave.delete(f"{path}/members", **erin)),
        json_of(dave.post(f"{path}/members", {**erin, "maxBudgetInTeam": 3})),
        json_of(dave.put(f"{path}/knowledge-bases", {"vector_stores": ["vs-rig-docs"]})),
        json_of(dave.put(f"{path}/mcp-servers", {"mcp_servers": []})),
        shown_in(dave, "/teams/managed", team_id),
    ]
    for answer in answers:
        assert_hidden(answer)
    known = litellm.team(team_id)
    assert known is not None
    assert known["max_budget"] == 7
    told(f"{len(answers)} answers of team administration were without dollars for dave")


def test_members_go_on_seeing_what_is_hidden_from_managers_only(
    from_managers: Service, person: Person, team_id: str
) -> None:
    assert shown_in(person("erin", at=from_managers), "/teams", team_id)["max_budget"] == BUDGET


def spent(usage: dict[str, Any]) -> dict[str, Any]:
    """Return usage that has something in it, else nothing."""
    return usage if usage["api_requests"] else {}
