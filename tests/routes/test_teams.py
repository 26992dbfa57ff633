"""Whose a team is: who is shown its budget, and what is said while nobody can tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.client import PluginClient, json_of
from tests.fakes import FakeBackstage, FakeLiteLLM

GROUP = {"owning_group": "group:default/litellm-team-admins"}
OTHERS = {"owning_group": "group:default/platform"}
DAYS = "start_date=2026-11-01&end_date=2026-11-03"
SPEND = "4.4375"
REPORT = {
    "results": [{"date": "2026-11-01", "metrics": {"spend": 4.4375}, "breakdown": {}}],
    "metadata": {"total_spend": 4.4375},
}


def _row(team_id: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "team_id": team_id,
        "metadata": metadata,
        "spend": 4.4375,
        "max_budget": 100,
        "object_permission": {"vector_stores": ["vs-docs"]},
        "members_with_roles": [{"user_id": "dave@example.com", "spend": 4.4375}],
    }


@pytest.fixture
def teams(litellm: FakeLiteLLM) -> FakeLiteLLM:
    """Dave is a member of a team that his group owns, of another group's, and of nobody's."""
    rows = [_row("ours", GROUP), _row("theirs", OTHERS), _row("plain", {})]
    litellm.get(
        "/user/info",
        json={
            "user_id": "dave@example.com",
            "user_info": {"user_id": "dave@example.com", "teams": ["ours", "theirs", "plain"]},
            "keys": [],
            "teams": [{**row, "team_memberships": []} for row in rows],
        },
    )
    for row in rows:
        query = {"team_id": row["team_id"]}
        litellm.get("/team/info", query=query, json={"team_id": row["team_id"], "team_info": row})
    litellm.get("/team/list", json=rows)
    litellm.post("/team/new", json=_row("new", GROUP))
    litellm.post("/team/update", json={"team_id": "ours", "data": rows[0]})
    litellm.post("/team/member_add", json={})
    litellm.post("/team/member_delete", json={})
    litellm.get("/team/daily/activity/aggregated", json=REPORT)
    litellm.get("/team/daily/activity", json=REPORT)
    return litellm


def _hidden(client: PluginClient, who: str) -> dict[str, bool]:
    """Tell which teams ``GET /teams`` shows without dollars."""
    rows = client.get("/teams", who=who).get_json()
    for row in rows:
        assert (SPEND in json.dumps(row)) != row.get("budget_hidden", False)
    return {row["team_id"]: "budget_hidden" in row for row in rows}


BY_OWNER = [
    ("hide-members", {"ours": True, "theirs": True, "plain": True}),
    ("hide-managers", {"ours": True, "theirs": False, "plain": False}),
    ("full", {"ours": False, "theirs": False, "plain": False}),
]


@pytest.mark.parametrize(("variant", "hidden"), BY_OWNER)
def test_a_team_admin_manages_what_the_group_owns_and_is_a_member_elsewhere(
    client: PluginClient, teams: FakeLiteLLM, variant: str, hidden: dict[str, bool]
) -> None:
    assert _hidden(client, "dave") == hidden
    # The list is the members' page; a manager's own team has its dollars in its usage.
    for team_id, is_hidden in (hidden | {"ours": variant == "hide-managers"}).items():
        usage = client.get(f"/teams/{team_id}/usage?{DAYS}", who="dave")
        assert usage.status_code == 200
        assert (SPEND not in usage.text) == is_hidden


WRITES: list[tuple[str, str, Any]] = [
    ("GET", "/teams/managed", None),
    ("POST", "/teams", {"team_alias": "a", "models": ["gpt-4o"], "max_budget": 5}),
    ("PATCH", "/teams/ours", {"team_alias": "b"}),
    ("POST", "/teams/ours/members", {"userEntityRef": "user:default/dave"}),
    ("DELETE", "/teams/ours/members?userEntityRef=dave%40example.com", {}),
    ("PUT", "/teams/ours/knowledge-bases", {"vector_stores": ["vs-docs"]}),
    ("PUT", "/teams/ours/mcp-servers", {"mcp_servers": []}),
]


@pytest.mark.parametrize("variant", ["hide-members", "hide-managers"])
@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_every_route_for_managers_hides_what_is_hidden_from_managers(
    client: PluginClient, teams: FakeLiteLLM, variant: str, method: str, path: str, body: Any
) -> None:
    sent = {} if body is None else {"json": body}
    answer = client.request(method, path, who="dave", **sent)
    assert answer.status_code == 200
    hides = variant == "hide-managers"
    assert (SPEND not in answer.text) == hides
    assert ("budget_hidden" in answer.text) == hides
    assert ("max_budget" not in answer.text) == hides


@pytest.mark.parametrize("variant", ["hide-members", "hide-managers"])
def test_budgets_are_hidden_while_nobody_can_tell_who_manages_a_team(
    client: PluginClient, teams: FakeLiteLLM, backstage: FakeBackstage
) -> None:
    backstage.failures["catalog"] = 503
    assert _hidden(client, "dave")["ours"]


# -- an outage is no denial -----------------------------------------------------


@pytest.mark.parametrize("fault", [500, 502, 503, 429, 401])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/teams/ours/usage?{DAYS}", None),
        ("POST", "/keys/generate", {"alias": "ci", "team_id": "ours"}),
    ],
)
def test_a_manager_is_not_denied_because_litellm_fails(
    client: PluginClient, litellm: FakeLiteLLM, method: str, path: str, body: Any, fault: int
) -> None:
    known = {"user_id": "dave@example.com", "user_info": {"user_id": "dave@example.com"}}
    litellm.get("/user/info", json=known)
    litellm.get("/team/info", status=fault, json={"error": {"message": "db"}})
    sent = {} if body is None else {"json": body}
    assert "member" not in json_of(client.request(method, path, who="dave", **sent), 502)["error"]
    assert litellm.writes == []


def test_a_team_that_litellm_does_not_know_is_a_denial(
    client: PluginClient, litellm: FakeLiteLLM
) -> None:
    known = {"user_id": "dave@example.com", "user_info": {"user_id": "dave@example.com"}}
    litellm.get("/user/info", json=known)
    litellm.get("/team/info", status=404, json={"error": {"message": "Team not found"}})
    assert client.get(f"/teams/gone/usage?{DAYS}", who="dave").status_code == 403
