"""``GET /user/info`` where notices are on: the amount from which on a budget is nearly spent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from litellm_plugin.config.settings import Notifications
from tests.client import Serve
from tests.fakes import FakeLiteLLM
from tests.routes.conftest import Account

ON = Notifications(enabled=True)


@pytest.mark.parametrize(
    ("notifications", "row", "soft_limit"),
    [
        (ON, {"max_budget": 10}, 8),
        (ON, {"max_budget": 0.3}, 0.24),
        (ON, {"max_budget": 10, "soft_limit": 5}, 5),
        (ON, {"max_budget": 0}, None),
        (ON, {"max_budget": None}, None),
        (replace(ON, budget_thresholds=(50.0, 100.0)), {"max_budget": 10}, 5),
        (replace(ON, budget_thresholds=()), {"max_budget": 10}, None),
        (Notifications(), {"max_budget": 10}, None),
    ],
)
def test_the_soft_limit_is_the_lowest_threshold(
    litellm: FakeLiteLLM,
    serve: Serve,
    account: Account,
    notifications: Notifications,
    row: dict[str, Any],
    soft_limit: float | None,
) -> None:
    litellm.get("/user/info", json=account(user_info={"user_id": "bob@example.com", **row}))
    told = serve(notifications=notifications).get("/user/info", who="bob").get_json()
    assert told.get("soft_limit") == soft_limit
    assert told.get("max_budget") == row["max_budget"]
