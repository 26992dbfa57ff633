"""``GET /teams/:id/usage/members``: who may read it, whose usage is whose, and hidden dollars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import (
    Audit,
    Display,
    MemberBreakdown,
    Settings,
    TeamUsage,
)
from litellm_plugin.sandbox.activity import UsageRow, page_of
from tests.client import PluginClient, Serve, json_of
from tests.fakes import Asked, FakeBackstage, FakeLiteLLM, Reply
from tests.fakes.backstage import Policy
from tests.fakes.litellm import Rule

Json = dict[str, Any]

DAYS = "start_date=2026-11-01&end_date=2026-11-30"
ACTIVITY = "/team/daily/activity/aggregated"
MEMBERS = f"/teams/ours/usage/members?{DAYS}"
GROUP = "group:default/litellm-team-admins"
ALICE, BOB, LEFT = "alice@example.com", "bob@example.com", "left@example.com"
# Key hashes: of alice, of bob, one that bob has deleted, of somebody who left, of no user.
GONE = "e" * 64
KEYS = {"k-alice": ALICE, "k-bob": BOB, GONE: BOB, "k-left": LEFT, "k-service": None}


def _used(token: str, spend: float, ok: int = 1, failed: int = 0) -> UsageRow:
    return UsageRow(
        day=date(2026, 11, 2),
        token=token,
        user_id=None,
        team_id="ours",
        model="gpt-4o",
        deployment="openai/gpt-4o",
        spend=spend,
        prompt_tokens=7,
        completion_tokens=2,
        successful_requests=ok,
        failed_requests=failed,
    )


USED = [
    _used("k-alice", 0.1, 3, 1),
    _used("k-bob", 0.2),
    _used(GONE, 0.3),
    _used("k-left", 0.05),
    _used("k-service", 0.02),
]


def _instead(litellm: FakeLiteLLM, path: str, status: int = 200, **reply: Any) -> None:
    """Let LiteLLM answer a path otherwise than its rules do."""
    litellm.rules.insert(0, Rule(path, Reply(status, **reply)))


def _activity(about: Callable[[str], Json]) -> Json:
    return page_of(
        USED,
        page=1,
        page_size=None,
        entity=lambda row: row.team_id or "",
        about_entity=lambda _name: {},
        about_key=about,
    )


def _about(token: str) -> Json:
    """Return what LiteLLM 1.106 tells about a key."""
    owner = KEYS[token]
    return {"key_alias": token, "team_id": "ours", "user_id": owner, "user_email": owner}


@pytest.fixture
def team(litellm: FakeLiteLLM) -> FakeLiteLLM:
    """A team of the team admins' group: alice leads it; bob and carol are in it."""
    row = {
        "team_id": "ours",
        "metadata": {"owning_group": GROUP},
        "members_with_roles": [
            {"user_id": ALICE, "user_email": ALICE, "role": "admin"},
            {"user_id": BOB, "user_email": None, "role": "user"},
            {"user_id": "carol@example.com", "role": "user"},
        ],
    }
    keys = [{"token": token, "user_id": KEYS[token]} for token in ("k-alice", "k-bob", "k-service")]
    for name in ("alice", "bob", "carol"):
        user = {"user_id": f"{name}@example.com", "teams": ["ours"]}
        account = {"user_id": user["user_id"], "user_info": user, "keys": [], "teams": [row]}
        litellm.get("/user/info", query={"user_id": user["user_id"]}, json=account)
    gone = {"error": {"message": "User not found", "code": "404"}}
    litellm.get("/user/info", json=gone, status=404)
    info = {"team_id": "ours", "team_info": row, "keys": keys}
    litellm.get("/team/info", query={"team_id": "ours"}, json=info)
    litellm.get("/team/info", json={"error": {"message": "Team not found"}}, status=404)
    litellm.get(ACTIVITY, json=_activity(_about))
    return litellm


@pytest.fixture
def breakdown() -> MemberBreakdown:
    return MemberBreakdown(enabled=True, viewer_roles=("admin",))


@pytest.fixture
def permission() -> bool:
    return True


@pytest.fixture
def settings(settings: Settings, breakdown: MemberBreakdown, permission: bool) -> Settings:
    return replace(
        settings, team_usage=TeamUsage(breakdown), permission_enabled=permission, display=Display()
    )


def rows_of(answer: Any) -> dict[str | None, Json]:
    return {row["user_id"]: row for row in answer.get_json()["members"]}


def test_each_key_counts_for_its_owner(client: PluginClient, team: FakeLiteLLM) -> None:
    answer = client.get(MEMBERS, who="alice")
    assert answer.status_code == 200
    told = answer.get_json()
    assert (told["team_id"], "budget_hidden" in told) == ("ours", False)
    assert told["total_spend"] == pytest.approx(0.67)
    order = [row["user_id"] for row in told["members"]]
    assert order == [BOB, ALICE, LEFT, None, "carol@example.com"]
    rows = rows_of(answer)
    assert rows[BOB] == {
        "user_id": BOB,
        "user_email": BOB,
        "display_name": "Bob Brown",
        "role": "user",
        "spend": 0.5,
        "spend_share_pct": 74.63,
        "prompt_tokens": 14,
        "completion_tokens": 4,
        "total_tokens": 18,
        "api_requests": 2,
        "successful_requests": 2,
        "failed_requests": 0,
        "success_rate": 100.0,
        "key_count": 1,
    }
    assert rows[ALICE]["success_rate"] == 75.0
    assert "role" not in rows[LEFT]
    assert (rows[None]["spend"], rows[None]["key_count"]) == (0.02, 1)
    idle = rows["carol@example.com"]
    assert (idle["spend"], idle["success_rate"], idle["key_count"]) == (0, None, 0)


def test_a_litellm_that_tells_no_owners_has_those_of_present_keys(
    client: PluginClient, team: FakeLiteLLM
) -> None:
    old = _activity(lambda token: {"key_alias": token, "team_id": "ours"})  # 1.81
    _instead(team, ACTIVITY, json=old)
    rows = rows_of(client.get(MEMBERS, who="alice"))
    assert {user: row["spend"] for user, row in rows.items() if row["spend"]} == {
        ALICE: 0.1,
        BOB: 0.2,
        None: pytest.approx(0.37),
    }


def test_owners_of_deleted_keys_come_from_the_audit_log(
    team: FakeLiteLLM, serve: Serve, tmp_path: Path
) -> None:
    client = serve(
        audit=Audit(store=True, group="group:default/litellm-admins"),
        database=Database(file=tmp_path / "store.sqlite"),
    )
    row = {"token": GONE, "user_id": ALICE, "key_alias": "ci", "team_id": "ours"}
    own = {"user_id": ALICE, "user_info": {"user_id": ALICE, "teams": ["ours"]}, "keys": [row]}
    listed = Rule("/user/info", Reply(json=own), query={"user_id": ALICE})
    team.rules.insert(0, listed)
    team.post("/key/delete", json={"deleted_keys": [GONE]})
    team.get("/audit", json={"audit_logs": [], "total": 0, "page": 1, "total_pages": 0})
    assert client.delete(f"/keys/{GONE}", who="alice").status_code == 200
    team.rules.remove(listed)
    assert client.get("/audit", who="alice").status_code == 200  # writes what waits
    old = _activity(lambda token: {"key_alias": token, "team_id": "ours"})
    _instead(team, ACTIVITY, json=old)
    rows = rows_of(client.get(MEMBERS, who="alice"))
    assert rows[ALICE]["spend"] == pytest.approx(0.4)
    assert rows[None]["spend"] == pytest.approx(0.07)


def test_usage_without_a_key_is_in_the_row_without_a_user(
    client: PluginClient, team: FakeLiteLLM
) -> None:
    cut = _activity(_about)
    for breakdown in (day["breakdown"] for day in cut["results"]):
        for entries in (breakdown["models"], breakdown["model_groups"]):
            for entry in entries.values():
                entry["api_key_breakdown"] = {}
        breakdown["api_keys"] = {"k-bob": breakdown["api_keys"]["k-bob"]}
    _instead(team, ACTIVITY, json=cut)
    told = client.get(MEMBERS, who="alice").get_json()
    assert told["total_spend"] == pytest.approx(0.67)
    rows = {row["user_id"]: row for row in told["members"]}
    assert rows[BOB]["spend"] == 0.2
    assert rows[None]["spend"] == pytest.approx(0.47)
    assert rows[None]["api_requests"] == 7


# -- who may read it -----------------------------------------------------------


@pytest.mark.parametrize("breakdown", [MemberBreakdown(), MemberBreakdown(viewer_roles=("admin",))])
def test_it_is_off_by_default(client: PluginClient, team: FakeLiteLLM) -> None:
    told = json_of(client.get(MEMBERS, who="alice"), 404)
    assert "litellm.teamUsage.memberBreakdown.enabled" in told["error"]
    assert team.calls == []


@pytest.mark.parametrize("breakdown", [MemberBreakdown(), MemberBreakdown(enabled=True)])
def test_the_permission_is_published_with_the_feature(
    client: PluginClient, settings: Settings
) -> None:
    path = "/.well-known/backstage/permissions/metadata"
    told = client.get(path, who="alice").get_json()
    published = [each for each in told["permissions"] if each["name"] == "litellm.team.usage.read"]
    enabled = settings.team_usage.member_breakdown.enabled
    wanted = {
        "type": "basic",
        "name": "litellm.team.usage.read",
        "attributes": {"action": "read"},
    }
    assert published == ([wanted] if enabled else [])


DENIED = Policy("litellm.team.usage.read@*")


@pytest.mark.parametrize(
    ("who", "policy", "permission", "status"),
    [
        ("dave", DENIED, True, 200),  # manages the team, and is no member
        ("alice", DENIED, True, 200),  # has a role of viewerRoles
        ("bob", Policy(), True, 200),  # the policy allows it
        ("bob", DENIED, True, 403),
        ("bob", Policy(), False, 403),  # nothing could grant it
        ("alice", Policy(), False, 200),
        ("dave", Policy(), False, 403),  # without permission.enabled nobody manages teams
        ("erin", Policy(), True, 403),  # no member, whatever the policy says
    ],
)
def test_managers_viewers_and_members_with_the_permission_may_read_it(
    client: PluginClient,
    team: FakeLiteLLM,
    backstage: FakeBackstage,
    who: str,
    policy: Policy,
    status: int,
) -> None:
    backstage.policy = policy
    answer = client.get(MEMBERS, who=who)
    assert answer.status_code == status
    if status == 403:
        assert "0.6" not in answer.text
        assert not any("activity" in call.path for call in team.calls)


@pytest.mark.parametrize("breakdown", [MemberBreakdown(enabled=True, viewer_roles=("user",))])
def test_plain_members_may_be_viewers(
    client: PluginClient, team: FakeLiteLLM, backstage: FakeBackstage
) -> None:
    backstage.policy = DENIED
    assert client.get(MEMBERS, who="bob").status_code == 200


@pytest.mark.parametrize("plugin", ["catalog", "permission"])
def test_it_is_denied_while_backstage_can_not_tell(
    client: PluginClient, team: FakeLiteLLM, backstage: FakeBackstage, plugin: str
) -> None:
    backstage.failures[plugin] = 503
    refused = client.get(MEMBERS, who="bob")
    assert refused.status_code >= 403
    assert "members" not in refused.get_json()


def test_a_service_may_not_read_it(client: PluginClient, team: FakeLiteLLM) -> None:
    path = f"{MEMBERS}&user_id={ALICE}"
    assert client.get(path, who="static").status_code == 401


@pytest.mark.parametrize(("status", "ours"), [(404, 403), (500, 503), (503, 503)])
def test_a_team_that_can_not_be_read_is_not_shown(
    client: PluginClient, team: FakeLiteLLM, status: int, ours: int
) -> None:
    _instead(team, "/team/info", status, json={"error": {"message": "no"}})
    assert client.get(MEMBERS, who="alice").status_code == ours


@pytest.mark.parametrize("query", ["", "start_date=2026-11-01", "start_date=a&start_date=b"])
def test_both_dates_are_needed(client: PluginClient, team: FakeLiteLLM, query: str) -> None:
    assert client.get(f"/teams/ours/usage/members?{query}", who="alice").status_code == 400


# -- hidden budgets ------------------------------------------------------------


@pytest.mark.parametrize(
    ("display", "who", "hidden"),
    [
        (Display(hide_team_budget_for_members=True), "bob", True),
        (Display(hide_team_budget_for_members=True), "dave", False),
        (Display(hide_team_budget_for_managers=True), "dave", True),
        (Display(hide_team_budget_for_managers=True), "bob", False),
    ],
)
def test_dollars_are_hidden_as_in_the_team_s_usage(
    serve: Serve, team: FakeLiteLLM, display: Display, who: str, hidden: bool
) -> None:
    client = serve(display=display)
    told = client.get(MEMBERS, who=who).get_json()
    assert told.get("budget_hidden", False) == hidden
    assert any(row["spend"] for row in told["members"]) != hidden
    assert (told["total_spend"] == 0) == hidden
    if hidden:
        # From decimals and the own spend the team's could be computed.
        assert [row["spend_share_pct"] for row in told["members"]] == [75, 15, 7, 3, 0]


def test_the_catalog_s_outage_costs_no_figures_for_those_who_may_read_them(
    client: PluginClient,
    team: FakeLiteLLM,
    backstage: FakeBackstage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = backstage.answer

    def without_names(asked: Asked) -> Reply:
        return Reply(503) if "profile.email" in asked.query else answer(asked)

    monkeypatch.setattr(backstage, "answer", without_names)
    told = client.get(MEMBERS, who="alice").get_json()
    assert math.fsum(row["spend"] for row in told["members"]) == told["total_spend"]
    assert not any("display_name" in row for row in told["members"])
