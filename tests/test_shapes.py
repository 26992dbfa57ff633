"""A team without its dollars."""

from __future__ import annotations

import json
from typing import Any

import pytest

from litellm_plugin import shapes

SEEN = "4.4375"


@pytest.mark.parametrize(
    ("spend", "budget", "percent", "status"),
    [
        (0, 90, 0, "ok"),
        (30, 90, 33, "ok"),
        (12.5, 100, 12, "ok"),  # as Python rounds what is half way
        (37.5, 100, 38, "ok"),
        (29, 100, 29, "ok"),
        (79.6, 100, 80, "ok"),  # the status goes by the exact ratio
        (80, 100, 80, "near"),
        (99.7, 100, 100, "near"),
        (100, 100, 100, "over"),
        (250, 100, 100, "over"),
        ("30.0", "90.0", 33, "ok"),
        (-5, 100, 0, "ok"),
        (1e308, 1e-308, 100, "over"),
        (0, 0, 100, "over"),
        (4.2, 0.0, 100, "over"),
        (4.2, -1, 100, "over"),
        (4.2, "none", 100, "over"),
        (4.2, None, 0, "ok"),
    ],
)
def test_a_percentage_is_whole_and_the_status_exact(
    spend: Any, budget: Any, percent: int, status: str
) -> None:
    team = shapes.without_budget({"team_id": "t", "spend": spend, "max_budget": budget})
    assert team == {
        "team_id": "t",
        "spend": 0,
        "budget_pct": percent,
        "budget_status": status,
        "budget_hidden": True,
    }
    assert isinstance(team["budget_pct"], int)


@pytest.mark.parametrize(
    "dollars",
    [
        {"max_budget": 4.4375},
        {"max_budget": "4.4375"},
        {"spend": 4.4375},
        {"soft_budget": 4.4375},
        {"team_member_budget": 4.4375},
        {"team_member_budget_table": {"budget_id": "b", "max_budget": 4.4375}},
        {"budget_limits": [{"budget_duration": "1d", "max_budget": 4.4375}]},
        {"model_max_budget": {"gpt-4o": 4.4375}},
        {"model_spend": {"gpt-4o": 4.4375}},
        {"members_with_roles": [{"user_id": "u", "spend": 4.4375}]},
        {"members_with_roles": [{"user_id": "u", "max_budget_in_team": 4.4375}]},
        {"team_memberships": [{"user_id": "u", "litellm_budget_table": {"max_budget": 4.4375}}]},
        {"team_memberships": [{"user_id": "u", "total_spend": 4.4375}]},
        {"keys": [{"token": "k", "spend": 4.4375, "max_budget": 1}]},
        {"metadata": {"maxBudget": 4.4375, "owning_group": "g"}},
        {"metadata": {"deep": [{"monthly_spend": [4.4375]}]}},
    ],
)
def test_no_dollars_are_left_wherever_they_are(dollars: dict[str, Any]) -> None:
    assert SEEN in json.dumps(dollars)
    team = shapes.without_budget({"team_id": "t", "spend": 0, **dollars})
    assert SEEN not in json.dumps(team)
    assert team["budget_hidden"] is True
    assert team["spend"] == 0


def test_what_is_not_about_dollars_is_left() -> None:
    row = {
        "team_id": "t",
        "spend": 1,
        "budget_duration": "30d",
        "budget_reset_at": "2026-12-01T00:00:00Z",
        "metadata": {"team_member_budget_id": "b", "owning_group": "g"},
        "members_with_roles": [{"user_id": "u", "role": "user"}],
        "tpm_limit": None,
    }
    shown = shapes.without_budget(row)
    assert {name: shown[name] for name in row if name != "spend"} == {
        name: value for name, value in row.items() if name != "spend"
    }


@pytest.mark.parametrize(
    "nothing",
    [{}, {"max_budget": None, "team_member_budget": None}, {"model_max_budget": {}}],
)
def test_a_team_without_any_dollars_stays_as_it_is(nothing: dict[str, Any]) -> None:
    row = {"team_id": "t", "spend": 0, "metadata": {}, **nothing}
    assert shapes.without_budget(row) == row
