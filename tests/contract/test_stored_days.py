"""Replays the cases about usage with ``litellm.usage.store``: for the first time, and again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import Usage
from litellm_plugin.usage.report import METRICS, TOTALS
from tests.client import Serve
from tests.contract.cases import Case
from tests.contract.compare import Outcome, differences
from tests.contract.test_cases import RECORDED
from tests.fakes import FakeBackstage, FakeLiteLLM, Policy

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)  # the days of the cases are over
USAGE = [case for case in RECORDED if "/usage?" in case.request["path"]]

# In the other cases there is no usage, or days lack metrics or don't add up to the totals, or
# budgets are hidden.
FROM_STORE = {
    "faults-fault-groups-missing",
    "faults-fault-groups-missing-team",
    "teams-team-usage-two-pages",
    "usage-usage-model-groups",
    "usage-usage-three-pages",
}


class Clock(datetime):
    """The clock of the service."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return NOW


@pytest.mark.parametrize(
    ("case", "variant"), [pytest.param(case, case.variant, id=case.id) for case in USAGE]
)
def test_stored_days_change_no_answer(
    case: Case,
    serve: Serve,
    litellm: FakeLiteLLM,
    backstage: FakeBackstage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("litellm_plugin.plugin.datetime", Clock)
    litellm.script(case.litellm)
    backstage.policy = Policy(case.policy)
    client = serve(usage=Usage(store=True), database=Database(), service={"cache_seconds": 0.0})

    def found() -> list[str]:
        litellm.calls.clear()
        answer = client.request(
            case.request["method"],
            case.request["path"],
            who=case.who,
            headers=case.request.get("headers"),
        )
        headers = {name.lower(): value for name, value in answer.headers}
        outcome = Outcome(answer.status_code, headers, answer.data, litellm.calls, NOW)
        report.update(answer.get_json())
        return differences(case, outcome)

    report: dict[str, Any] = {}
    assert found() == []
    if "usage_by_key" not in report or case.writes:
        return
    path = next(call.path for call in litellm.calls if "/daily/activity" in call.path)
    path = f"{path.removesuffix('/aggregated')}/aggregated"
    litellm.get(f"{path}/keys", json=_keys_used(report))
    litellm.rules.insert(0, litellm.rules.pop())
    assert found() == []
    assert (path not in {call.path for call in litellm.calls}) == (case.id in FROM_STORE)


def _keys_used(report: dict[str, Any]) -> dict[str, Any]:
    """Return LiteLLM's sums by key, of which all but the first may be nobody's."""
    names = dict(zip(TOTALS, METRICS, strict=True))
    keys = [
        {"api_key": token, "metrics": {names[n]: use[n] for n in TOTALS}, "metadata": use}
        for token, use in report["usage_by_key"].items()
    ]
    sums = {n: sum(use[n] for use in report["usage_by_key"].values()) for n in TOTALS}
    rest = {names[n]: report[n] - sums[n] for n in TOTALS}
    rows = [*keys, {"api_key": "", "metrics": rest, "metadata": {}}]
    return {"api_keys": rows, "total_api_keys": len(rows)}
