"""Usage over HTTP: which LiteLLM is asked, how, and what becomes of its refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from litellm_plugin import create_app
from litellm_plugin.config.settings import Settings
from tests.client import PluginClient
from tests.fakes import FakeLiteLLM, Reply
from tests.fakes.litellm import Rule

DAYS = "start_date=2026-11-01&end_date=2026-11-03"
OWN = f"/usage?{DAYS}"
TEAMS = f"/teams/t1/usage?{DAYS}"
ACTIVITY = {OWN: "/user/daily/activity", TEAMS: "/team/daily/activity"}
DETAILS = "/health/readiness/details"
NOT_FOUND = {"detail": "Not Found"}
EVERYBODY = {"results": [], "metadata": {"total_spend": 99.0}}
Headers = Mapping[str, str]


@pytest.fixture
def bob(headers_of: Callable[[str], Headers], litellm: FakeLiteLLM) -> Headers:
    """A member of team t1."""
    team = {"team_id": "t1", "members_with_roles": [{"user_id": "bob@example.com"}]}
    user = {"user_id": "bob@example.com", "teams": ["t1"]}
    account = {"user_id": "bob@example.com", "user_info": user, "keys": [], "teams": [team]}
    litellm.get("/user/info", json=account, query={"user_id": "bob@example.com"})
    litellm.get("/team/info", json={"team_id": "t1", "team_info": team})
    return headers_of("bob")


@pytest.fixture
def service(headers_of: Callable[[str], Headers]) -> Headers:
    return headers_of("static")


def asked(litellm: FakeLiteLLM, path: str) -> int:
    return [call.path for call in litellm.calls].count(path)


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_what_litellm_does_not_find_is_an_empty_report(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, target: str
) -> None:
    path = ACTIVITY[target]
    litellm.get(f"{path}/aggregated", json=NOT_FOUND, status=404)
    litellm.get(path, json={"detail": {"error": "No usage found"}}, status=404)
    answer = client.get(target, headers=bob)
    assert answer.status_code == 200
    assert answer.get_json()["daily_usage"] == []


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_a_later_page_that_litellm_does_not_find_is_no_empty_report(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, target: str
) -> None:
    path = ACTIVITY[target]
    litellm.get(f"{path}/aggregated", json=NOT_FOUND, status=404)
    litellm.get(path, query={"page": "1"}, json={"results": [], "metadata": {"total_pages": 2}})
    litellm.get(path, json=NOT_FOUND, status=404)
    answer = client.get(target, headers=bob)
    assert answer.status_code == 503
    assert "not page 2" in answer.get_json()["error"]


@pytest.mark.parametrize("target", [OWN, TEAMS])
@pytest.mark.parametrize("status", [401, 403, 422, 429])
def test_a_refusal_that_is_not_about_the_dates_is_503(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, target: str, status: int
) -> None:
    litellm.get(f"{ACTIVITY[target]}/aggregated", json={"detail": "no"}, status=status)
    assert client.get(target, headers=bob).status_code == 503


@pytest.mark.parametrize("status", [401, 429, 500])
def test_nobody_is_told_not_to_be_a_member_while_litellm_can_not_tell(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, status: int
) -> None:
    litellm.rules.insert(0, Rule("/user/info", Reply(status, {"error": {"message": "no"}})))
    assert client.get(TEAMS, headers=bob).status_code == 503


@pytest.mark.parametrize("target", [OWN, TEAMS])
def test_too_many_pages_are_too_much_to_ask_for(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, target: str
) -> None:
    path = ACTIVITY[target]
    litellm.get(f"{path}/aggregated", json=NOT_FOUND, status=404)
    litellm.get(path, json={"results": [], "metadata": {"total_pages": 1329}})
    answer = client.get(target, headers=bob)
    assert answer.status_code == 503
    assert "1329" in answer.get_json()["error"]
    assert "fewer days" in answer.get_json()["error"]
    assert asked(litellm, path) == 1


@pytest.mark.parametrize("target", [OWN, TEAMS])
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_litellm_that_is_down_is_503(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, target: str, status: int
) -> None:
    litellm.get(f"{ACTIVITY[target]}/aggregated", text="down, not found", status=status)
    answer = client.get(target, headers=bob)
    assert answer.status_code == 503
    assert "LiteLLM can't be asked for the usage" in answer.get_json()["error"]


@pytest.mark.parametrize("whose", ["/usage", "/teams/t1/usage"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"results": []}),
        (400, {"detail": {"error": "end_date must be on or after start_date"}}),
    ],
)
def test_an_end_before_the_start_is_an_empty_report_with_every_version(
    client: PluginClient,
    litellm: FakeLiteLLM,
    bob: Headers,
    whose: str,
    status: int,
    body: Any,
) -> None:
    for path in ACTIVITY.values():
        litellm.get(f"{path}/aggregated", json=body, status=status)
    answer = client.get(f"{whose}?start_date=2026-11-03&end_date=2026-11-01", headers=bob)
    assert answer.status_code == 200
    assert answer.get_json()["daily_usage"] == []


@pytest.mark.parametrize(
    "told",
    [
        {DETAILS: {"litellm_version": "1.81.13"}},
        {DETAILS: None, "/health/readiness": {"db": "connected", "litellm_version": "1.80.17"}},
    ],
)
@pytest.mark.parametrize("seconds", [0.0, None])
def test_a_litellm_that_ignores_whose_usage_it_is_is_not_asked_for_a_persons(
    client_of: Callable[[Flask], PluginClient],
    settings: Settings,
    litellm: FakeLiteLLM,
    bob: Headers,
    service: Headers,
    told: Mapping[str, Any],
    seconds: float | None,
) -> None:
    for path, body in told.items():
        litellm.get(path, json=body or NOT_FOUND, status=200 if body else 404)
    for path in ACTIVITY.values():
        litellm.get(f"{path}/aggregated", json=EVERYBODY)
    remembering = replace(settings.service, cache_seconds=seconds)
    client = client_of(create_app(replace(settings, service=remembering)))
    for who, target in ((bob, OWN), (service, f"{OWN}&user_id=bob%40example.com"), (bob, OWN)):
        answer = client.get(target, headers=who)
        assert answer.status_code == 503
        assert "1.81.14" in answer.get_json()["error"]
    assert asked(litellm, "/user/daily/activity/aggregated") == 0
    assert asked(litellm, DETAILS) == 1
    # A team's usage is told apart by all versions, and everybody's is what a service asks for.
    assert client.get(TEAMS, headers=bob).get_json()["total_spend"] == 99.0
    assert client.get(OWN, headers=service).get_json()["total_spend"] == 99.0


def test_a_version_that_is_not_told_is_allowed(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, caplog: pytest.LogCaptureFixture
) -> None:
    litellm.get("/user/daily/activity/aggregated", json={"results": []})
    for _ in range(2):
        assert client.get(OWN, headers=bob).status_code == 200
    assert caplog.text.count("LiteLLM's version is unknown") == 1
    assert asked(litellm, "/openapi.json") == 0


def test_the_plain_list_of_models_keeps_what_it_says(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers
) -> None:
    litellm.get("/model/info", json={"detail": "no"}, status=500)
    row = {"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "openai"}
    told = {"supports_vision": False, "max_input_tokens": 128000, "input_cost_per_token": 0}
    litellm.get("/models", json={"data": [row | told | {"mode": "chat"}, {"id": "x"}]})
    assert client.get("/models", headers=bob).get_json() == [
        {"model_name": "gpt-4o", "mode": "chat", **told},
        {"model_name": "x", "mode": "chat"},
    ]
