"""Which notice is due, and what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from litellm_plugin.notifications.rules import (
    DAY,
    TEAM,
    USER,
    Audience,
    Notice,
    budget_notice,
    key_notices,
)

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
RESET = "2026-12-01T00:00:00Z"
TOKEN = "0123456789abcdef" * 4
THRESHOLDS, SPANS = (80.0, 90.0, 100.0), (7 * DAY, DAY)
JANE = "user:default/jane"
SHOWN, HIDDEN = Audience({JANE: True}), Audience({JANE: False}, amounts=False)


def user(**fields: Any) -> dict[str, Any]:
    row = {"user_id": "jane@example.com", "spend": 8.5, "max_budget": 10, "budget_reset_at": RESET}
    return {**row, **fields}


def key(**fields: Any) -> dict[str, Any]:
    made = (NOW - timedelta(days=60)).isoformat()
    row = {"token": TOKEN, "key_alias": "ci", "key_name": "sk-...AbCd", "created_at": made}
    return {**row, "spend": 0.0, "max_budget": None, "expires": None, **fields}


def of_budget(row: dict[str, Any], audience: Audience = SHOWN) -> Notice:
    notice = budget_notice(USER, row, THRESHOLDS, audience)
    assert notice is not None
    return notice


def of_end(**after: float) -> list[tuple[str, str]]:
    expires = (NOW + timedelta(**after)).isoformat()
    found = key_notices(key(expires=expires), THRESHOLDS, SPANS, NOW, SHOWN)
    return [(notice.mark, notice.severity) for notice in found]


@pytest.mark.parametrize(
    ("spend", "budget", "mark", "severity"),
    [
        (7.999, 10, None, ""),
        (8, 10, "budget-80", "normal"),
        (0.24, 0.3, "budget-80", "normal"),
        (9, 10, "budget-90", "high"),
        (10, 10, "budget-100", "critical"),
        (250, 10, "budget-100", "critical"),
        ("9.5", "10", "budget-90", "high"),  # LiteLLM may send amounts as text
        (5, 0, None, ""),
        (5, None, None, ""),
        (5, -1, None, ""),
        (None, 10, None, ""),
        (True, 1, None, ""),
        (float("nan"), 10, None, ""),
        (9, float("inf"), None, ""),
    ],
)
def test_the_highest_threshold_that_is_reached(
    spend: Any, budget: Any, mark: str | None, severity: str
) -> None:
    notice = budget_notice(USER, user(spend=spend, max_budget=budget), THRESHOLDS, SHOWN)
    assert (notice and notice.mark) == mark
    assert notice is None or notice.severity == severity


def test_a_tiny_budget_does_not_stop_the_notices_of_others() -> None:
    notice = of_budget(user(spend=0.001, max_budget=5e-324))
    assert notice.percent > 100
    assert notice.title == "LiteLLM: the budget of jane@example.com is spent"


@pytest.mark.parametrize(
    ("reset_at", "period"),
    [
        (RESET, "2026-12-01T00:00:00Z"),
        # The same time, as LiteLLM writes it elsewhere.
        ("2026-12-01T00:00:00.000000+00:00", "2026-12-01T00:00:00Z"),
        ("2026-12-01T01:00:00+01:00", "2026-12-01T00:00:00Z"),
        (None, "lifetime"),
        ("soon", "lifetime"),
    ],
)
def test_the_period_is_the_time_of_the_renewal(reset_at: Any, period: str) -> None:
    assert of_budget(user(budget_reset_at=reset_at)).period == period


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ({"days": 8}, []),
        ({"days": 7}, [("expiry-7d", "normal")]),
        ({"days": 2}, [("expiry-7d", "normal")]),
        ({"hours": 24}, [("expiry-1d", "high")]),
        ({"seconds": 1}, [("expiry-1d", "high")]),
        ({"seconds": 0}, []),
        ({"days": -1}, []),
    ],
)
def test_the_shortest_time_before_the_end_of_a_key(
    after: dict[str, float], found: list[tuple[str, str]]
) -> None:
    assert of_end(**after) == found


@pytest.mark.parametrize(
    ("life", "marks"),
    [
        (timedelta(hours=1), []),
        (timedelta(days=1), []),
        (timedelta(days=1, seconds=1), ["expiry-1d"]),
    ],
)
def test_a_key_made_for_a_short_time_is_not_warned_about_at_once(
    life: timedelta, marks: list[str]
) -> None:
    expires = NOW + timedelta(minutes=30)
    row = key(expires=expires.isoformat(), created_at=(expires - life).isoformat())
    assert [each.mark for each in key_notices(row, THRESHOLDS, SPANS, NOW, SHOWN)] == marks


def test_a_key_may_be_due_two_notices() -> None:
    row = key(expires=(NOW + timedelta(hours=3)).isoformat(), spend=1, max_budget=1)
    found = key_notices(row, THRESHOLDS, SPANS, NOW, SHOWN)
    assert [notice.mark for notice in found] == ["budget-100", "expiry-1d"]
    # They replace each other's older ones, not each other.
    assert len({notice.payload(JANE)["scope"] for notice in found}) == 2
    assert key_notices({**row, "blocked": True}, THRESHOLDS, SPANS, NOW, SHOWN) == []
    ended = {**row, "expires": (NOW - timedelta(hours=3)).isoformat()}
    assert key_notices(ended, THRESHOLDS, SPANS, NOW, SHOWN) == []


def test_what_is_not_warned_about() -> None:
    assert budget_notice(USER, user(), (), SHOWN) is None
    team = {"team_id": "t", "team_alias": "T", "spend": 5, "max_budget": 5, "blocked": False}
    assert budget_notice(TEAM, team, THRESHOLDS, SHOWN) is not None
    assert budget_notice(TEAM, {**team, "blocked": True}, THRESHOLDS, SHOWN) is None


def test_what_a_person_reads() -> None:
    payload = of_budget(user()).payload(JANE)
    assert payload["title"] == "LiteLLM: 85 % of the budget of jane@example.com is spent"
    assert payload["description"] == (
        "8.50 of 10.00 USD are spent. The budget is renewed on 2026-12-01 00:00 UTC."
    )
    assert (payload["link"], payload["topic"]) == ("/litellm", "litellm")
    spent = of_budget(user(spend=12, budget_reset_at=None)).payload(JANE)
    assert spent["title"] == "LiteLLM: the budget of jane@example.com is spent"
    assert spent["description"] == (
        "12.00 of 10.00 USD are spent. LiteLLM refuses requests beyond the budget. The budget is"
        " not renewed; an administrator can raise it."
    )
    assert spent["scope"] == payload["scope"]
    expires = "2026-12-03T09:30:00Z"
    (end,) = key_notices(key(expires=expires), THRESHOLDS, SPANS, NOW, SHOWN)
    assert end.title == "LiteLLM: key ci ends on 2026-12-03 09:30 UTC"
    assert end.payload(JANE)["link"] == "/litellm?tab=keys"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "ci"),
        ({"key_alias": None}, "sk-...AbCd"),
        ({"key_alias": "", "key_name": None}, TOKEN[:12]),
        ({"key_alias": "x" * 300}, "x" * 100),
        ({"key_alias": "ci\r\nBcc: all\u202e"}, "ci  Bcc: all "),
    ],
)
def test_a_key_is_named_in_short(fields: dict[str, Any], name: str) -> None:
    row = key(spend=9, max_budget=10, **fields)
    (notice,) = key_notices(row, THRESHOLDS, SPANS, NOW, SHOWN)
    assert notice.title == f"LiteLLM: 90 % of the budget of key {name} is spent"
    assert TOKEN not in str(notice.payload(JANE)) + str(notice.event())


def test_amounts_are_hidden_from_those_who_may_not_see_them() -> None:
    notice = of_budget(user(spend=8.57), HIDDEN)
    text = str(notice.payload(JANE)) + str(notice.event())
    assert "85 %" in text
    assert "USD" not in text
    assert "8.57" not in text
    assert not notice.event()["data"].keys() & {"spend", "max_budget"}
    # A webhook may pass the text on to all of its recipients.
    other = Audience({JANE: False, "user:default/bob": True})
    notice = of_budget(user(spend=8.57), other)
    assert "8.57" in notice.payload("user:default/bob")["description"]
    assert "8.57" not in notice.payload(JANE)["description"]
    assert "8.57" not in str(notice.event())


def test_what_a_webhook_gets() -> None:
    assert of_budget(user()).event() == {
        "type": "litellm.budget.reached",
        "data": {
            "subject": "user",
            "id": "jane@example.com",
            "name": "jane@example.com",
            "threshold": 80.0,
            "percent": 85,
            "spend": 8.5,
            "max_budget": 10.0,
            "budget_reset_at": "2026-12-01T00:00:00Z",
            "severity": "normal",
            "title": "LiteLLM: 85 % of the budget of jane@example.com is spent",
            "description": "8.50 of 10.00 USD are spent. The budget is renewed on 2026-12-01"
            " 00:00 UTC.",
            "recipients": [JANE],
        },
    }
    (end,) = key_notices(key(expires="2026-12-01T00:00:00Z"), THRESHOLDS, SPANS, NOW, Audience())
    event = end.event()
    assert event["type"] == "litellm.key.ending"
    assert event["data"]["expires_at"] == "2026-12-01T00:00:00Z"
    assert (event["data"]["threshold"], event["data"]["recipients"]) == (DAY, [])


def test_the_id_of_an_event_is_that_of_threshold_and_period() -> None:
    first = of_budget(user())
    assert of_budget(user(spend=8.9)).event_id == first.event_id
    others = [
        of_budget(user(spend=9)),
        of_budget(user(budget_reset_at=None)),
        of_budget(user(user_id="bob@example.com")),
    ]
    assert first.event_id not in {other.event_id for other in others}
