"""User, keys and teams of an account: each is read by itself, and only where a route needs it."""

from __future__ import annotations

import pytest

from tests.client import PluginClient
from tests.fakes import FakeLiteLLM
from tests.fakes.network import NOTHING
from tests.routes.conftest import OWN_KEY

Headers = dict[str, str]

BOB = "bob@example.com"
DAYS = "start_date=2026-11-01&end_date=2026-11-02"
PATHS = {"user": "/v2/user/info", "keys": "/key/list", "teams": "/v2/team/list"}


@pytest.fixture
def bobs(litellm: FakeLiteLLM) -> FakeLiteLLM:
    row = {"team_id": "t1", "team_alias": "One", "object_permission_id": None}
    litellm.get("/v2/user/info", json={"user_id": BOB, "teams": ["t1"]})
    litellm.get("/user/daily/activity/aggregated", json={"results": [], "metadata": {}})
    litellm.post("/key/block", json={})
    litellm.post("/key/generate", json={"key": "sk-canary-new-key", "token": "2" * 64})
    litellm.get("/key/list", json={"keys": [{"token": OWN_KEY}], "total_pages": 1})
    litellm.get("/v2/team/list", json={"teams": [row], "total_pages": 1})
    return litellm


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/user/info", ["/v2/user/info"]),
        ("GET", "/keys", ["/v2/user/info", "/key/list"]),
        ("GET", "/teams", ["/v2/user/info", "/v2/team/list"]),
        ("GET", f"/usage?{DAYS}", ["/v2/user/info", "/user/daily/activity/aggregated"]),
        ("POST", f"/keys/{OWN_KEY}/block", ["/v2/user/info", "/key/list", "/key/block"]),
        ("POST", "/keys/generate", ["/v2/user/info", "/key/generate"]),
    ],
)
def test_a_route_reads_what_it_needs_and_no_more(
    client: PluginClient, bobs: FakeLiteLLM, bob: Headers, method: str, path: str, asked: list[str]
) -> None:
    body = {"alias": "ci", "team_id": "t1", "max_budget": 1}
    answer = client.request(method, path, json=body if method == "POST" else NOTHING, headers=bob)
    assert answer.status_code == 200, answer.text
    assert [call.path for call in bobs.calls if "/health" not in call.path] == asked


SHOWN_BY = {"user": "/user/info", "keys": "/keys", "teams": "/teams"}
DOWN: list[dict[str, object]] = [{"status": 503}, {"text": "<html>"}]
ODD: dict[str, object] = {"json": {}}  # of a user: there is none


@pytest.mark.parametrize(
    ("part", "reply"),
    [*((part, reply) for part in SHOWN_BY for reply in DOWN), ("keys", ODD), ("teams", ODD)],
)
def test_a_part_that_can_not_be_had_is_no_empty_part(
    client: PluginClient,
    litellm: FakeLiteLLM,
    bob: Headers,
    part: str,
    reply: dict[str, object],
    request: pytest.FixtureRequest,
) -> None:
    litellm.get(PATHS[part], **reply)
    request.getfixturevalue("bobs")
    assert client.get(SHOWN_BY[part], headers=bob).status_code >= 500


@pytest.mark.parametrize("down", ["keys", "teams"])
def test_a_part_that_is_down_keeps_no_other_back(
    client: PluginClient,
    litellm: FakeLiteLLM,
    bob: Headers,
    down: str,
    request: pytest.FixtureRequest,
) -> None:
    litellm.get(PATHS[down], status=503)
    request.getfixturevalue("bobs")
    for part, path in SHOWN_BY.items():
        if part != down:
            assert client.get(path, headers=bob).status_code == 200


def test_nothing_is_done_to_a_key_whose_owner_can_not_be_told(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers, request: pytest.FixtureRequest
) -> None:
    litellm.get("/key/list", status=503)
    request.getfixturevalue("bobs")
    answer = client.post(f"/keys/{OWN_KEY}/block", headers=bob)
    assert answer.status_code >= 500
    assert litellm.writes == []


def test_teams_come_in_the_order_of_the_users_row(
    client: PluginClient, litellm: FakeLiteLLM, bob: Headers
) -> None:
    ids = ["t2", "t1", "t3"]
    rows = [{"team_id": id_, "object_permission_id": None} for id_ in sorted(ids)]
    litellm.get("/v2/user/info", json={"user_id": BOB, "teams": ids})
    litellm.get("/v2/team/list", json={"teams": rows, "total_pages": 1})
    teams = client.get("/teams", headers=bob).get_json()
    assert [team["team_id"] for team in teams] == ids
