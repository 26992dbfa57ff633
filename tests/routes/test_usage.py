"""Usage over HTTP: which LiteLLM is asked, how, and what becomes of its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from litellm_plugin.config.database import Database
from litellm_plugin.config.settings import Usage
from litellm_plugin.sandbox.activity import UsageRow
from tests.client import PluginClient, Serve, json_of
from tests.fakes import Asked, FakeLiteLLM, Network, Reply
from tests.fakes.litellm import Rule
from tests.standin import KEY, furnished

DAYS = "start_date=2026-11-01&end_date=2026-11-03"
OWN = f"/usage?{DAYS}"
TEAMS = f"/teams/t1/usage?{DAYS}"
ACTIVITY = {OWN: "/user/daily/activity", TEAMS: "/team/daily/activity"}
DETAILS = "/health/readiness/details"
NOT_FOUND = {"detail": "Not Found"}
EVERYBODY = {"results": [], "metadata": {"total_spend": 99.0}}


@pytest.fixture
def litellm(litellm: FakeLiteLLM) -> FakeLiteLLM:
    """Bob is a member of team t1."""
    team = {"team_id": "t1", "members_with_roles": [{"user_id": "bob@example.com"}]}
    user = {"user_id": "bob@example.com", "teams": ["t1"]}
    account = {"user_id": "bob@example.com", "user_info": user, "keys": [], "teams": [team]}
    litellm.get("/user/info", json=account, query={"user_id": "bob@example.com"})
    litellm.get("/team/info", json={"team_id": "t1", "team_info": team})
    return litellm


def asked(litellm: FakeLiteLLM, path: str) -> int:
    return [call.path for call in litellm.calls].count(path)


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_what_litellm_does_not_find_is_an_empty_report(
    client: PluginClient, litellm: FakeLiteLLM, target: str
) -> None:
    path = ACTIVITY[target]
    litellm.get(f"{path}/aggregated", json=NOT_FOUND, status=404)
    litellm.get(path, json={"detail": {"error": "No usage found"}}, status=404)
    assert json_of(client.get(target, who="bob"))["daily_usage"] == []


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_a_later_page_that_litellm_does_not_find_is_no_empty_report(
    client: PluginClient, litellm: FakeLiteLLM, target: str
) -> None:
    path = ACTIVITY[target]
    litellm.get(f"{path}/aggregated", json=NOT_FOUND, status=404)
    litellm.get(path, query={"page": "1"}, json={"results": [], "metadata": {"total_pages": 2}})
    litellm.get(path, json=NOT_FOUND, status=404)
    assert "not page 2" in json_of(client.get(target, who="bob"), 503)["error"]


@pytest.mark.parametrize("target", [OWN, TEAMS])
@pytest.mark.parametrize("status", [401, 403, 422, 429, 502, 503, 504])
def test_what_is_not_about_the_dates_is_503(
    client: PluginClient, litellm: FakeLiteLLM, target: str, status: int
) -> None:
    litellm.get(f"{ACTIVITY[target]}/aggregated", text="down, not found", status=status)
    told = json_of(client.get(target, who="bob"), 503)
    assert status < 500 or "LiteLLM can't be asked for the usage" in told["error"]


@pytest.mark.parametrize("status", [401, 429, 500])
def test_nobody_is_told_not_to_be_a_member_while_litellm_can_not_tell(
    client: PluginClient, litellm: FakeLiteLLM, status: int
) -> None:
    litellm.rules.insert(0, Rule("/user/info", Reply(status, {"error": {"message": "no"}})))
    assert client.get(TEAMS, who="bob").status_code == 503


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_too_many_pages_are_too_much_to_ask_for(
    client: PluginClient, litellm: FakeLiteLLM, target: str
) -> None:
    path = ACTIVITY[target]
    litellm.get(f"{path}/aggregated", json=NOT_FOUND, status=404)
    litellm.get(path, json={"results": [], "metadata": {"total_pages": 1329}})
    told = json_of(client.get(target, who="bob"), 503)
    assert "1329" in told["error"]
    assert "fewer days" in told["error"]
    assert asked(litellm, path) == 1


@pytest.mark.parametrize("whose", ["/usage", "/teams/t1/usage"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"results": []}),
        (400, {"detail": {"error": "end_date must be on or after start_date"}}),
    ],
)
def test_an_end_before_the_start_is_an_empty_report_with_every_version(
    client: PluginClient, litellm: FakeLiteLLM, whose: str, status: int, body: Any
) -> None:
    for path in ACTIVITY.values():
        litellm.get(f"{path}/aggregated", json=body, status=status)
    told = json_of(client.get(f"{whose}?start_date=2026-11-03&end_date=2026-11-01", who="bob"))
    assert told["daily_usage"] == []


@pytest.mark.parametrize(
    "told",
    [
        {DETAILS: {"litellm_version": "1.81.13"}},
        {DETAILS: None, "/health/readiness": {"db": "connected", "litellm_version": "1.80.17"}},
    ],
)
@pytest.mark.parametrize("seconds", [0.0, None])
def test_a_litellm_that_ignores_whose_usage_it_is_is_not_asked_for_a_persons(
    serve: Serve, litellm: FakeLiteLLM, told: Mapping[str, Any], seconds: float | None
) -> None:
    for path, body in told.items():
        litellm.get(path, json=body or NOT_FOUND, status=200 if body else 404)
    for path in ACTIVITY.values():
        litellm.get(f"{path}/aggregated", json=EVERYBODY)
    client = serve(service={"cache_seconds": seconds})
    for who, target in (
        ("bob", OWN),
        ("static", f"{OWN}&user_id=bob%40example.com"),
        ("bob", OWN),
    ):
        assert "1.81.14" in json_of(client.get(target, who=who), 503)["error"]
    assert asked(litellm, "/user/daily/activity/aggregated") == 0
    assert asked(litellm, DETAILS) == 1
    # A team's usage is told apart by all versions, and everybody's is what a service asks for.
    assert client.get(TEAMS, who="bob").get_json()["total_spend"] == 99.0
    assert client.get(OWN, who="static").get_json()["total_spend"] == 99.0


def test_a_version_that_is_not_told_is_allowed(
    client: PluginClient, litellm: FakeLiteLLM, caplog: pytest.LogCaptureFixture
) -> None:
    litellm.get("/user/daily/activity/aggregated", json={"results": []})
    for _ in range(2):
        assert client.get(OWN, who="bob").status_code == 200
    assert caplog.text.count("LiteLLM's version is unknown") == 1
    assert asked(litellm, "/openapi.json") == 0


def test_the_plain_list_of_models_keeps_what_it_says(
    client: PluginClient, litellm: FakeLiteLLM
) -> None:
    litellm.get("/model/info", json={"detail": "no"}, status=500)
    row = {"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "openai"}
    told = {"supports_vision": False, "max_input_tokens": 128000, "input_cost_per_token": 0}
    litellm.get("/models", json={"data": [row | told | {"mode": "chat"}, {"id": "x"}]})
    assert client.get("/models", who="bob").get_json() == [
        {"model_name": "gpt-4o", "mode": "chat", **told},
        {"model_name": "x", "mode": "chat"},
    ]


# -- time zones --------------------------------------------------------------


class Clock(datetime):
    """Three o'clock in the night in UTC, and the day before west of UTC-3."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime(2026, 11, 3, 3, tzinfo=UTC)


@pytest.mark.parametrize("target", ["/usage", "/teams/t1/usage"])
@pytest.mark.parametrize(
    ("timezone", "end", "asked_for"),
    [
        ("300", "2026-11-02", "2026-11-03"),
        ("180", "2026-11-02", "2026-11-02"),  # it is the third there
        ("300", "2026-11-01", "2026-11-01"),
        ("300", "2026-11-04", "2026-11-04"),
        ("0", "2026-11-03", "2026-11-03"),
        ("-120", "2026-11-03", "2026-11-03"),
        ("720", "2026-11-03", "2026-11-03"),
    ],
)
def test_a_period_that_ends_today_elsewhere_ends_today_in_utc(
    client: PluginClient,
    litellm: FakeLiteLLM,
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    timezone: str,
    end: str,
    asked_for: str,
) -> None:
    monkeypatch.setattr("litellm_plugin.routes.inputs.datetime", Clock)
    path = "/user" if target == "/usage" else "/team"
    litellm.get(
        f"{path}/daily/activity/aggregated", json={"results": []}, query={"end_date": asked_for}
    )
    period = f"start_date=2026-11-01&end_date={end}"
    answer = client.get(f"{target}?{period}&timezone={timezone}", who="bob")
    assert answer.status_code == 200, answer.text
    assert answer.get_json()["timezone"] == "UTC"
    (call,) = [call for call in litellm.calls if "activity" in call.path]
    assert "timezone" not in call.target


@pytest.mark.parametrize("target", [OWN, TEAMS])
@pytest.mark.parametrize("timezone", ["CET", "-841", "721", "1.5", "1e2", "²", "9999"])
def test_what_is_no_time_zone_is_refused(client: PluginClient, target: str, timezone: str) -> None:
    told = json_of(client.get(f"{target}&timezone={timezone}", who="bob"), 400)
    assert "wanted minutes behind UTC" in told["error"]


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_without_a_time_zone_nothing_is_said_of_it(
    client: PluginClient, litellm: FakeLiteLLM, target: str
) -> None:
    litellm.get(f"{ACTIVITY[target]}/aggregated", json={"results": []})
    assert "timezone" not in client.get(target, who="bob").get_json()


# -- stored days ---------------------------------------------------------------


def test_stored_days_have_the_names_and_the_usage_of_now(
    network: Network, litellm: FakeLiteLLM, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def used(day: str) -> UsageRow:
        own = (date.fromisoformat(day), KEY, "alice@example.com", None, "m", "openai/m")
        return UsageRow(*own, 1.0, prompt_tokens=7, completion_tokens=2, successful_requests=1)

    network.hosts[network.hosts.index(litellm)] = standin = furnished()
    answer = standin.answer
    asked_for: list[str] = []

    def watched(request: Asked) -> Reply:
        asked_for.append(request.path)
        return answer(request)

    monkeypatch.setattr(standin, "answer", watched)
    today = datetime.now(UTC).date()
    days = [(today - timedelta(days=ago)).isoformat() for ago in range(4)]
    store = standin.litellm.store
    store.usage.clear()
    store.add_usage(used(day) for day in days)
    client = serve(usage=Usage(store=True), database=Database())

    def key(period: str = f"start_date={days[-1]}&end_date={days[0]}") -> dict[str, Any]:
        report = client.get(f"/usage?{period}", who="alice").get_json()
        use: dict[str, Any] = report["usage_by_key"][KEY]
        assert use["total_spend"] == pytest.approx(report["total_spend"])
        return use

    assert key()["total_spend"] == pytest.approx(4)
    renamed = client.post(f"/keys/{KEY}/update", json={"key_alias": "renamed"}, who="alice")
    assert renamed.status_code == 200, renamed.text
    assert key()["key_alias"] == "renamed"
    aggregated = "/user/daily/activity/aggregated"
    assert asked_for[-2:] == [f"{aggregated}/keys", aggregated]
    store.add_usage([used(days[-1])])  # late
    assert key(f"start_date={days[-1]}&end_date={days[-2]}")["total_spend"] == pytest.approx(3)
